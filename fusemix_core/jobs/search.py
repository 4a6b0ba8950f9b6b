"""Searching the items of a dataset with a fused model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fusemix_core.config import DataConfig
from fusemix_core.data.asked import modality_of
from fusemix_core.data.items import Items
from fusemix_core.data.reading import NO_TRUST
from fusemix_core.fused import FusedModel
from fusemix_core.reranked import RerankModel
from fusemix_core.runs.candidates import Reranking, store_tokens
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter


@dataclass(frozen=True)
class Hit:
    """One of the best items of a gallery for a query: its rank from 1, its score, the item, column
    → value of the row that it was read from, and its number among the gallery's `items`."""

    rank: int
    score: float
    item: str
    columns: Mapping[str, str]
    number: int

    def as_dict(self) -> dict[str, Any]:
        """All but the number."""
        columns = dict(self.columns)
        return {"rank": self.rank, "score": self.score, "item": self.item, "columns": columns}


class Gallery:
    """The items of one modality, embedded, to search in.

    items: the dataset's unique items; embeddings: unit-norm `[n, d]` of those numbered `ids`.
    shown: the columns of the rows that hits have. reranker: orders the first hits anew; it belongs
    to the model.
    """

    def __init__(
        self,
        model: FusedModel,
        target: str,
        config: DataConfig,
        reporter: Reporter | None = None,
        shown: Sequence[str] = (),
        reranker: RerankModel | None = None,
    ) -> None:
        takes = {target: model.encoders[target].takes}
        columns = {m: c for m, c in config.columns.items() if m == target}
        config = replace(
            config,
            columns=columns,
            facts={column: f"{column}:text" for column in shown},
            trust_column=NO_TRUST,
            validation_fraction=0.0,
            test_fraction=0.0,
        )
        reporter = reporter or Reporter()
        dataset = read_usable(config, takes, tell=reporter.note, least=1)
        encoded = encode_for(model, dataset, reporter, config.max_bad)
        found = embed_for(model, encoded.paired())
        self.model, self.target, self.config = model, target, config
        self.items: Items = encoded.dataset.items[target]
        self.ids: Tensor = found.ids[target]
        self.embeddings: Tensor = found.embeddings[target]
        links = encoded.dataset.links[:, encoded.dataset.modalities.index(target)]
        self._rows = dict(
            zip(*map(np.ndarray.tolist, np.unique(links, return_index=True)), strict=True)
        )
        self._facts = encoded.dataset.facts
        self._scores: dict[str, Callable[[Tensor], Tensor]] = {}
        self.reranking = None if reranker is None else Reranking(reranker)
        self._reporter = reporter

    def search(self, query: str | Path, modality: str, count: int = 10) -> list[Hit]:
        """The `count` items of the gallery that score highest for a query of `modality`.

        Example:

            gallery = Gallery(model, "image", DataConfig(source=("photos",)))
            gallery.search("a map", "text")[0].item
        """
        embedded = self.model.encode(modality, [query])
        if modality not in self._scores:
            self._scores[modality] = self.model.prepare(self.embeddings, modality, self.target)
        scores = self._scores[modality](embedded)[0]
        wanted = count if self.reranking is None else self.reranking.wanted(count)
        best = scores.topk(min(wanted, len(scores)))
        values, numbers = best.values.tolist(), self.ids[best.indices].tolist()
        order = range(len(numbers))
        if self.reranking is not None:
            order = self._anew(self.reranking, query, modality, numbers, values)
        return [
            Hit(rank, values[i], self.items.describe(numbers[i]), self._columns(numbers[i]),
                numbers[i])
            for rank, i in enumerate(order[:count], 1)
        ]  # fmt: skip

    def _anew(
        self,
        reranking: Reranking,
        query: str | Path,
        modality: str,
        numbers: Sequence[int],
        scores: Sequence[float],
    ) -> list[int]:
        """The places of hits in the order of the re-ranker. Their tokens are kept in the store."""
        index = np.array(numbers)
        if reranking.reranker.weight(modality, self.target):
            some = index[: reranking.reranker.top_k]
            store_tokens(reranking.reranker, self.items.select(some), self._reporter)
        else:
            self._reporter.note(
                f"The re-ranker changes nothing from {modality} to {self.target}: its weight is 0."
            )

        def read(i: int) -> Any:
            return self.items.load(numbers[i])

        how = modality, query, self.target, self.items.keys[index]
        return reranking.order(*how, read, scores)

    def _columns(self, item: int) -> dict[str, str]:
        """The texts of the shown columns in the first row of an item, "" if a cell is empty."""
        row, names = self._rows[item], self._facts.items()
        return {n: fact.names[v] if (v := fact.values[row]) >= 0 else "" for n, fact in names}


def query_modality(model: FusedModel, query: str, given: str | None) -> str:
    """The modality of a query among a model's; see `modality_of`."""
    return modality_of(query, {m: info.takes for m, info in model.encoders.items()}, given)
