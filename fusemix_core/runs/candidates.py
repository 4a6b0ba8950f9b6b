"""A re-ranker at work: the tokens of candidates, and the new order of a query's results."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.dataset import SPLITS, PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Padded, as_tokens
from fusemix_core.latents.remote import store_at
from fusemix_core.reranked import RerankModel
from fusemix_core.runs.models import encode_for, model_of
from fusemix_core.runs.reporter import Reporter
from fusemix_core.saved.encoders import Source

MEMORY = 256 << 20
"""Bytes of candidates' tokens that stay in memory."""


def load_reranker(
    path: str | Path,
    model: FusedModel,
    encoders: Mapping[str, Source] | None = None,
) -> RerankModel:
    """The re-ranker of a run, a folder or a hub id, for a fused model.

    Args:
        path: what `fusemix rerank` wrote.
        model: that it belongs to.
        encoders: those that the user names. They are taken where a saved name may not be.

    Raises:
        ArtefactError: it is not a re-ranker, or belongs to another model.
    """
    source, device = model_of(path), str(model.device)
    found = RerankModel.from_pretrained(source, device=device)
    own = {
        m: encoder
        for m, encoder in (encoders or {}).items()
        if m in found.encoders and not found.encoders[m].registered
    }
    if own:
        found = RerankModel.from_pretrained(source, device=device, encoders=own)
    found.check(model)
    return found


def store_tokens(reranker: RerankModel, items: Items, reporter: Reporter | None = None) -> int:
    """Fill the latent store with the tokens of items, so that no search waits for them; how many of
    these could be encoded."""
    none = np.zeros(0, np.int64)
    dataset = PairedDataset(
        {items.modality: items},
        np.arange(len(items))[:, None],
        dict.fromkeys(SPLITS, none),
        items.origin,
        rows_read=len(items),
        least=1,
    )
    return len(encode_for(reranker, dataset, reporter or Reporter(), max_bad=1.0).dataset)


class Reranking:
    """Orders the results of a fused model anew. Threads may share it.

    The tokens of candidates come from memory, else from the latent store, else from the encoder.

    Args:
        reranker: belongs to the fused model that found the candidates; see `load_reranker`.
        store: the address of the object store, as in `RunConfig`.

    Example:
        reranking = Reranking(load_reranker("runs/rerank", model))
        order = reranking.order("text", "a map", "image", items.keys[ids], read, scores)
    """

    def __init__(self, reranker: RerankModel, store: str | None = None) -> None:
        self.reranker = reranker
        self._store = store_at(store)
        self._kept: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()
        self._bytes, self._lock = 0, Lock()

    @property
    def directions(self) -> list[str]:
        """The directions in which it changes an order, such as `text->image`."""
        return [name for name, weight in self.reranker.weights.items() if weight]

    def wanted(self, count: int) -> int:
        """How many results to ask the fused model for, if so many are shown."""
        return max(count, self.reranker.top_k)

    def order(
        self,
        query: str,
        item: Any,
        target: str,
        keys: np.ndarray,
        read: Callable[[int], Any],
        scores: Sequence[float],
    ) -> list[int]:
        """The places of a query's results, the best first. Those beyond `top_k` stay behind.

        Args:
            query: the modality of the query.
            item: the query, raw.
            target: the modality of the results.
            keys: uint64 `[n, 2]`, the content keys of the results, the best first.
            read: the number of a result → the item, raw.
            scores: of the results, by the fused model.
        """
        rest = list(range(len(keys)))
        count = min(self.reranker.top_k, len(keys))
        if not count or not self.reranker.weight(query, target):
            return rest
        candidates = self.tokens(target, keys[:count], read)
        own = torch.tensor(list(scores[:count]), dtype=torch.float64)
        new = self.reranker.rescore(query, item, target, candidates, own)
        return [*new.argsort(descending=True, stable=True).tolist(), *rest[count:]]

    def tokens(self, modality: str, keys: np.ndarray, read: Callable[[int], Any]) -> Padded:
        """The tokens of items; arguments as in `order`."""
        names = [(modality, key.tobytes()) for key in np.ascontiguousarray(keys, "<u8")]
        with self._lock:
            found = {i: self._kept[name] for i, name in enumerate(names) if name in self._kept}
        if missing := [i for i in range(len(names)) if i not in found]:
            new = self._read(modality, keys[missing], lambda i: read(missing[i]))
            found |= dict(zip(missing, new, strict=True))
            self._keep({names[i]: found[i] for i in missing})
        return Padded.of([found[i] for i in range(len(names))])

    def _read(self, modality: str, keys: np.ndarray, read: Callable[[int], Any]) -> list[Tensor]:
        """The tokens of each item that is not in memory."""
        info = self.reranker.encoders[modality]
        absent = self._store.missing(info.fingerprint, info.view, keys, "float16")
        found: dict[int, Tensor] = {}
        if not absent.all():
            here = np.flatnonzero(~absent)
            table = self._store.open(info.fingerprint, info.view, keys[here], "float16")
            rows = _each(table.rows(torch.arange(len(here))))
            found |= dict(zip(here.tolist(), rows, strict=True))
        if absent.any():
            gone = np.flatnonzero(absent).tolist()
            items = _each(self.reranker.tokens(modality, [read(i) for i in gone]))
            found |= dict(zip(gone, items, strict=True))
        return [found[i] for i in range(len(keys))]

    def _keep(self, tokens: Mapping[tuple[str, bytes], Tensor]) -> None:
        with self._lock:
            for name, one in tokens.items():
                if name not in self._kept:
                    self._bytes += one.nbytes
                self._kept[name] = one
            while self._bytes > MEMORY and len(self._kept) > len(tokens):
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _each(latents: Tensor | Padded) -> list[Tensor]:
    """The tokens `[T, d]` of each item."""
    tokens = as_tokens(latents)
    return [row[mask].clone() for row, mask in zip(tokens.values, tokens.mask, strict=True)]
