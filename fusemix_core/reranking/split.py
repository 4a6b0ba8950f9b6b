"""The pairs of a split as a re-ranker sees them: tokens, and the scores of the fused model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations

import torch
from torch import Tensor

from fusemix_core.errors import DataError
from fusemix_core.evaluation.ranking import Positives
from fusemix_core.interfaces import PairedLatents
from fusemix_core.measured import Score
from fusemix_core.numerics import exact

TILE = 1 << 22
"""Scores of the fused model that are in memory at once."""


@dataclass(frozen=True)
class Split:
    """Pairs of two modalities.

    Attributes:
        tokens: the latents that the re-ranker takes, and the links of this split.
        embeddings: modality → unit-norm `[n, d]` by the fused model, a row for each item of the
            table in `tokens`. Rows of items that no link of the split has are not read.
        score: that of the fused model's scorer.
        same: modality → int64 `[n]`: items of one number say the same, so neither is ever a
            negative for a partner of the other. Without an entry each item is its own.
    """

    tokens: PairedLatents
    embeddings: Mapping[str, Tensor]
    score: Score
    same: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.tokens.modalities) != 2:
            raise ValueError(f"A re-ranker takes two modalities, not {self.tokens.modalities}.")
        both = (self.tokens.links >= 0).all(dim=1).nonzero()[:, 0]
        pairs = self.tokens.select(both).with_tokens(self.tokens.modalities)
        object.__setattr__(self, "tokens", pairs)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.tokens.modalities

    @property
    def directions(self) -> list[tuple[str, str]]:
        """(query, target), both ways."""
        return list(permutations(self.modalities, 2))

    def positives(self, query: str, target: str) -> Positives:
        """The queries of a direction, its gallery, and which items belong together."""
        columns = [self.modalities.index(m) for m in (query, target)]
        return Positives.of(self.tokens.links, *columns)

    def scores(
        self, queries: Tensor, gallery: Tensor, query: str, target: str
    ) -> Iterator[tuple[slice, Tensor]]:
        """(places in `queries`, scores float32 `[q, m]`) of items by number, tile by tile."""
        rows = self.embeddings[target][gallery]
        size = max(1, TILE // max(1, len(gallery)))
        for start in range(0, len(queries), size):
            place = slice(start, start + size)
            asked = self.embeddings[query][queries[place]]
            with exact(), torch.no_grad():
                yield place, self.score(asked, rows, query, target).float()

    @cached_property
    def partners(self) -> Partners:
        """Which items belong together, those that say the same included."""
        return Partners.of(self)


@dataclass(frozen=True)
class Partners:
    """Which items of two modalities belong together, directly or because they say the same.

    Attributes:
        groups: modality → int64 `[n]`, the number that items which say the same have in common.
        codes: sorted int64, one for each two groups that a link connects.
        width: groups of the second modality.
    """

    groups: Mapping[str, Tensor]
    codes: Tensor
    width: int

    @classmethod
    def of(cls, split: Split) -> Partners:
        """Those of the links of a split."""
        groups = {
            m: split.same.get(m, torch.arange(len(table)))
            for m, table in split.tokens.tables.items()
        }
        first, second = (
            groups[m][ids] for m, ids in zip(groups, split.tokens.links.T, strict=True)
        )
        width = 1 + int(list(groups.values())[1].max())
        return cls(groups, (first * width + second).unique(), width)

    def together(self, query: str, asked: Tensor, target: str, others: Tensor) -> Tensor:
        """bool: whether items int64 `[…]` of a modality belong to those of the other."""
        pair = {query: self.groups[query][asked], target: self.groups[target][others]}
        first, second = (pair[m] for m in self.groups)
        code = first * self.width + second
        at = torch.searchsorted(self.codes, code).clamp(max=len(self.codes) - 1)
        return self.codes[at] == code


@dataclass(frozen=True)
class Shortlist:
    """The first k of the fused model's ranking, for each query of a direction.

    Attributes:
        query, target: the modalities.
        queries: int64 `[n]`, items.
        candidates: int64 `[n, k]`, items, best first.
        scores: float32 `[n, k]`, by the fused model.
        positive: bool `[n, k]`, which candidates belong to the query.
    """

    query: str
    target: str
    queries: Tensor
    candidates: Tensor
    scores: Tensor
    positive: Tensor

    @property
    def name(self) -> str:
        return f"{self.query}->{self.target}"

    def __getitem__(self, rows: Tensor) -> Shortlist:
        """The queries `rows`, int64."""
        own = (self.queries, self.candidates, self.scores, self.positive)
        return Shortlist(self.query, self.target, *(one[rows] for one in own))


def shortlist(split: Split, query: str, target: str, k: int, most: int | None = None) -> Shortlist:
    """The short list of each query of a direction.

    Args:
        split: the pairs; the gallery is all items of `target` that they link.
        query, target: the modalities.
        k: candidates of a query; fewer if the gallery is smaller.
        most: queries at most, spread evenly over all.

    Raises:
        DataError: the split has no pair.
    """
    found = split.positives(query, target)
    if not len(found.queries):
        raise DataError(
            f"No row of a split has both {query} and {target}, so there is nothing to re-rank.",
            "Give more pairs, or another split.",
        )
    queries = found.queries
    if most is not None and len(queries) > most:
        queries = queries[torch.linspace(0, len(queries) - 1, most).long()]
    k = min(k, len(found.gallery))
    scores, candidates = torch.empty(len(queries), k), torch.empty(len(queries), k).long()
    for place, tile in split.scores(queries, found.gallery, query, target):
        best = tile.topk(k)
        scores[place], candidates[place] = best.values.cpu(), found.gallery[best.indices.cpu()]
    linked = found.queries[found.pairs[:, 0]] * (1 + int(found.gallery[-1]))
    linked = linked + found.gallery[found.pairs[:, 1]]
    codes = queries[:, None] * (1 + int(found.gallery[-1])) + candidates
    return Shortlist(query, target, queries, candidates, scores, torch.isin(codes, linked))
