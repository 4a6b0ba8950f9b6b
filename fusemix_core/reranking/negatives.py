"""Negatives: items that do not belong to a query, the ones that the fused model mistakes most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fusemix_core.reranking.split import Split

Kind = Literal["hard", "random"]
SPARE = 64
"""Candidates beyond the pool that are looked at, as some of the first ones are partners."""


@dataclass(frozen=True)
class Negatives:
    """The pools of negatives of training rows, in one direction.

    Attributes:
        pool: int64 `[m, P]`, items of `target` for each row.
        allowed: bool `[m, P]`, those that do not belong to the row's item of `query`.
    """

    query: str
    target: str
    pool: Tensor
    allowed: Tensor

    def draw(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(int64 `[r, count]`, items of different places in each row's pool; bool, which of them
        are negatives: a row that has fewer gets some that are none). Draws from torch's global
        generator."""
        chance = torch.rand(len(rows), self.pool.shape[1])
        chance = chance.masked_fill(~self.allowed[rows], -1.0)
        drawn = chance.topk(min(count, chance.shape[1]), dim=1)
        return self.pool[rows].gather(1, drawn.indices), drawn.values >= 0


def hard_negatives(split: Split, query: str, target: str, size: int) -> Negatives:
    """For each row the `size` items that the fused model ranks first and that do not belong to the
    row's item."""
    gallery = split.tokens.linked(target)
    asked, row = _asked(split, query)
    look = min(len(gallery), size + SPARE)
    pool = torch.empty(len(asked), look, dtype=torch.long)
    for place, tile in split.scores(asked, gallery, query, target):
        pool[place] = gallery[tile.topk(look).indices.cpu()]
    together = split.partners.together(query, asked[:, None].expand_as(pool), target, pool)
    order = together.int().argsort(dim=1, stable=True)[:, :size]  # negatives first, best first
    pool, allowed = pool.gather(1, order), ~together.gather(1, order)
    return Negatives(query, target, pool[row], allowed[row])


def random_negatives(
    split: Split, query: str, target: str, size: int, generator: torch.Generator
) -> Negatives:
    """For each row `size` items drawn from all of the split; all if there are no more."""
    gallery = split.tokens.linked(target)
    asked, row = _asked(split, query)
    if len(gallery) <= size:
        pool = gallery.expand(len(row), -1)
    else:
        pool = gallery[torch.randint(len(gallery), (len(row), size), generator=generator)]
    own = asked[row][:, None].expand_as(pool)
    return Negatives(query, target, pool, ~split.partners.together(query, own, target, pool))


def _asked(split: Split, query: str) -> tuple[Tensor, Tensor]:
    """(the different items of a modality; int64 `[m]`, which of them each row has)."""
    return split.tokens.links[:, split.modalities.index(query)].unique(return_inverse=True)
