"""`arl`: the embeddings of each side predict the entities that the row's text mentions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fusemix_arl.graph import EntityGraph, fitted
from fusemix_arl.knowledge import Mentions, Triples, read_triples
from fusemix_core.config import Part
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.interfaces import (
    Adapter,
    FitContext,
    Objective,
    PairedLatents,
    Step,
    input_of,
)
from fusemix_core.modules import Modules
from fusemix_core.objectives.pairs import unit_rows
from fusemix_core.registry import registry

GRAPHS = ("attention", "none")


class Query(nn.Module):
    """From an embedding to the space of entities."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(given, given), nn.Linear(given, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, width]`, none below 0."""
        return self.fc2(self.fc1(x).relu()).relu()


def alignment_loss(queries: Tensor, entities: Tensor, mentioned: Tensor, rows: Tensor) -> Tensor:
    """The mean binary cross-entropy of the entities that rows mention.

    Args:
        queries: `[n, width]`.
        entities: `[e, width]`.
        mentioned: `[n, e]` from 0 to 1.
        rows: bool `[n]`: those that count; 0 if none does.
    """
    logits = queries @ entities.T
    each = binary_cross_entropy_with_logits(logits, mentioned, reduction="none").mean(dim=1)
    return torch.where(rows, each, 0.0).sum() / rows.sum().clamp(min=1)


class Arl(Objective):
    """Another objective, plus the knowledge alignment of ARL (Chen et al., arXiv:2209.07118).

    Entities and relations come from a file of triples. TransE makes vectors of them, and attention
    along the graph's edges makes others of these, in which neighbours are alike. Each side's
    embedding, through a small network of its own, predicts which entities the row's text mentions,
    by the inner product. Only entities that a training row mentions are predicted. A mixed row
    mentions those of its sources, each by half.

    Args:
        triples: a CSV file with the columns head, relation, tail; see `read_triples`.
        fact: the fact with the texts, in which entities are found by their names.
        objective, options: the other objective, and its options.
        weight: of the knowledge alignment.
        graph: `attention`; `none` for the entities' vectors without the graph, the baseline.
        reverse: whether edges lead from tails to heads, too.
        width: of an entity's vector.
        heads, head_width: of the attention.
        dropout: of entities and attention in training.
        epochs, margin: of TransE; with no epochs vectors are random.

    Raises:
        ConfigError: an option is out of range.

    Example:
        fusemix align … --fact words=text --set objective=arl --set objective.triples=triples.csv
    """

    uses = ("facts",)

    def __init__(
        self,
        *,
        triples: str = "",
        fact: str = "words",
        objective: str = "infonce",
        options: Mapping[str, Any] = MappingProxyType({}),
        weight: float = 1.0,
        graph: str = "attention",
        reverse: bool = False,
        width: int = 64,
        heads: int = 8,
        head_width: int = 16,
        dropout: float = 0.0,
        epochs: int = 100,
        margin: float = 5.0,
    ) -> None:
        super().__init__()
        if graph not in GRAPHS or weight < 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"arl has graph={graph}, weight={weight} and dropout={dropout}.",
                "graph is attention or none; weight 0 or more; dropout from 0 to below 1.",
            )
        if min(width, heads, head_width) < 1 or epochs < 0:
            raise ConfigError(
                f"arl has width={width}, heads={heads}, head_width={head_width}, epochs={epochs}.",
                "Widths and heads are 1 or more, epochs 0 or more.",
            )
        self.inner = registry.build("objective", Part(objective, dict(options)))
        self.uses = tuple(dict.fromkeys((*self.inner.uses, *type(self).uses)))
        self.triples, self.fact, self.weight, self.graph = triples, fact, weight, graph
        self.reverse, self.width = reverse, width
        self.how = {"heads": heads, "head_width": head_width, "drop": dropout}
        self.transe = {"epochs": epochs, "margin": margin}

    def start(
        self,
        adapters: Mapping[str, Adapter],
        train: PairedLatents,
        validation: PairedLatents,
        context: FitContext,
    ) -> None:
        self.inner.start(adapters, train, validation, context)
        fact = train.facts.get(self.fact)
        if fact is None or fact.kind not in ("text", "class"):
            raise ConfigError(
                f"arl finds entities in the fact '{self.fact}', and the rows have no such texts.",
                f"Name their column: --fact {self.fact}=COLUMN:text",
            )
        triples = read_triples(self.triples)
        found = Mentions(triples.entities)
        of_texts = [sorted({one.entity for one in found(text)}) for text in fact.names]
        used = sorted({e for text in set(fact.values[fact.values >= 0]) for e in of_texts[text]})
        if not used:
            raise DataError(
                f"No training row mentions any of the {len(triples.entities):,} entities of "
                f"{self.triples}.",
                f"Entities are found by their names in the fact '{self.fact}': name another "
                f"column (--fact {self.fact}=COLUMN:text), or other triples.",
            )
        self.register_buffer("used", torch.tensor(used), persistent=False)
        self.register_buffer("mentioned", _padded(of_texts, used), persistent=False)
        self.entities = self._entities(triples, context.seed)
        widths = [_width(adapter, m, train) for m, adapter in adapters.items()]
        self.queries = Modules(Query(given, self.width) for given in widths)
        self.sides = list(adapters)

    used: Tensor
    mentioned: Tensor

    def _entities(self, triples: Triples, seed: int) -> EntityGraph:
        table = fitted(triples, self.width, seed=seed, **self.transe).entity
        edges = torch.from_numpy(np.ascontiguousarray(triples.edges(self.reverse)))
        return EntityGraph(table, edges if self.graph == "attention" else None, **self.how)

    def forward(self, step: Step) -> Tensor:
        texts = step.facts[self.fact]  # [n, S]
        count = len(self.used)
        wanted = self.mentioned.new_zeros((*texts.shape, count + 1), dtype=torch.float32)
        wanted = wanted.scatter(2, self.mentioned[texts], 1.0)[..., :count].mean(dim=1)
        known, entities = (texts >= 0).all(dim=1), self.entities()[self.used]
        losses = []
        for k, (modality, x) in enumerate(step.embeddings.items()):
            given = unit_rows(x) * math.sqrt(x.shape[1])
            queries = self.queries[self.sides.index(modality)](given.to(entities.dtype))
            rows = step.present[:, k] & known
            losses.append(alignment_loss(queries, entities, wanted.to(queries.dtype), rows))
        aligned = torch.stack(losses).sum()
        self._last = aligned.detach()
        return self.inner(step) + self.weight * aligned

    def log(self) -> dict[str, float | Tensor]:
        return {**self.inner.log(), "knowledge": self._last}


def _padded(of_texts: Sequence[Sequence[int]], used: Sequence[int]) -> Tensor:
    """int64 `[texts + 1, most]`: the places among `used` of the entities that each text mentions,
    and `len(used)` as padding. The last row is of no text."""
    place = {entity: i for i, entity in enumerate(used)}
    rows = [[place[e] for e in one if e in place] for one in of_texts]
    table = torch.full((len(rows) + 1, max(map(len, rows), default=0) or 1), len(used))
    for i, row in enumerate(rows):
        table[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return table


def _width(adapter: Adapter, modality: str, train: PairedLatents) -> int:
    """Of the adapter's embeddings."""
    rows = train.tables[modality].rows(train.linked(modality)[:2])
    quiet = deepcopy(adapter).cpu().eval()
    with torch.no_grad():
        return quiet(input_of(quiet, rows.to("cpu"))).shape[1]
