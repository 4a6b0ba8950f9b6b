"""What is done with a tile of similarities between its products: by torch, or in one pass each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """Some of the similarities, with a weight each.

    i, j: int64 `[p]`, their row and column, by rows. weights: float `[p]`.
    """

    i: Tensor
    j: Tensor
    weights: Tensor

    @classmethod
    def of(cls, i: Tensor, j: Tensor, weights: Tensor) -> Entries:
        """Of any order."""
        order = i.argsort(stable=True)
        return cls(i[order], j[order], weights[order])

    def by_tiles(self, rows: list[slice]) -> list[Entries]:
        """Those of each tile of rows, counted from its first row."""
        ends = torch.tensor([part.stop for part in rows], device=self.i.device)
        last = torch.searchsorted(self.i, ends).tolist()
        parts = zip(rows, [0, *last], last, strict=False)
        return [
            Entries(self.i[a:b] - part.start, self.j[a:b], self.weights[a:b])
            for part, a, b in parts
        ]


class Statistics(NamedTuple):
    """Of a tile `[t, m]`: the similarities of partners `[t]`; the largest of each row `[t]` and
    column `[m]`, partners too, and the sums of exp(s - largest) over all but partners."""

    own: Tensor
    row_most: Tensor
    row_sums: Tensor
    column_most: Tensor
    column_sums: Tensor


class Passes(Protocol):
    """The two passes over a tile of float32 similarities `[t, m]`, -inf where excluded. Row i has
    its partner in column `first` + i; for `first` ≥ m no row has one here."""

    def statistics(self, tile: Tensor, first: int) -> Statistics: ...

    def weights(
        self,
        tile: Tensor,
        first: int,
        row_sums: Tensor,
        column_sums: Tensor,
        by_row: Tensor,
        by_column: Tensor,
        partners: Tensor,
        scale: Tensor,
        more: Entries | None,
    ) -> Tensor:
        """float16 `[t, m]`: scale times by_row exp(s - row_sums) + by_column exp(s - column_sums),
        or times `partners` if these are, and `more` added. The tile stays as it is."""
        ...


class _Plain:
    """By torch's own operations."""

    def statistics(self, tile: Tensor, first: int) -> Statistics:
        rows, columns = tile.amax(dim=1), tile.amax(dim=0)
        return Statistics(
            tile.diagonal(first).clone(),
            rows,
            _others(tile, rows[:, None], first).sum(1),
            columns,
            _others(tile, finite(columns), first).sum(0),
        )

    def weights(
        self,
        tile: Tensor,
        first: int,
        row_sums: Tensor,
        column_sums: Tensor,
        by_row: Tensor,
        by_column: Tensor,
        partners: Tensor,
        scale: Tensor,
        more: Entries | None,
    ) -> Tensor:
        found = (tile - column_sums).exp_().mul_(by_column)
        found += (tile - row_sums[:, None]).exp_().mul_(by_row[:, None])
        diagonal = found.diagonal(first)
        diagonal.copy_(partners[: len(diagonal)])
        if more is not None:
            found.index_put_((more.i, more.j), more.weights, accumulate=True)
        return found.mul_(scale).half()


PLAIN = _Plain()


def _others(tile: Tensor, level: Tensor, first: int) -> Tensor:
    """exp(s - level) of a tile, 0 for partners."""
    powers = (tile - level).exp_()
    powers.diagonal(first).zero_()
    return powers


def finite(most: Tensor) -> Tensor:
    """A maximum over nothing as 0."""
    return most.masked_fill(most.isinf(), 0)
