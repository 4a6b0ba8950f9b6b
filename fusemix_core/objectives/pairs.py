"""The pairs of modalities of a batch, and which of its rows share an item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.gathering import Rows, processes, rank, total
from fusemix_core.numerics import once_differentiable
from fusemix_core.objectives import ring as rings
from fusemix_core.objectives.ring import Ring
from fusemix_core.objectives.tiles import KEPT_BYTES, Excluded, kept_bytes_on, none_excluded
from fusemix_core.paired import sent, spread
from fusemix_core.step import Step

_PART = 1 << 16
"""Pairs of rows that are gathered at once on a GPU."""


@dataclass(frozen=True)
class Pair:
    """The rows that have both of two modalities, of unit norm in float32 (float64 if they are).

    x, y: rows of this process `[t, d]`, of the first and the second modality. gathered: the second
    modality's rows of all processes `[n, d]`, among which the own ones start at `start`; None if
    they go round in `ring` instead. ids: the sources `[n, S, 2]` of all rows, on the CPU. In one
    process t = n and y is all_y. rounds: whether products of the rows may be taken in half
    precision; kept_bytes: what a loss of them may keep; step: how many were done before.
    """

    x: Tensor
    y: Tensor
    gathered: Tensor | None
    ids: Tensor
    start: int
    rounds: bool = False
    kept_bytes: int = KEPT_BYTES
    step: int = 0
    ring: Ring | None = None

    @property
    def all_y(self) -> Tensor:
        """What is `gathered`, for a loss that does not ask for a ring."""
        assert self.gathered is not None, "the rows go round in a ring"
        return self.gathered

    @property
    def count(self) -> int:
        """How many rows all processes have."""
        return len(self.ids)

    @property
    def own(self) -> slice:
        """This process's rows among all."""
        return slice(self.start, self.start + len(self.x))


def pairs_of(step: Step, ring: bool = False) -> list[Pair]:
    """Each pair of modalities, in the order of `combinations`; collective, see `gathering`.

    ring: whether the loss can do without the gathered rows, if these would take more than
    `ring.GATHER_BYTES`.
    """
    rows, links = step.rows, step.links_here
    unit = [unit_rows(x) for x in step.own.embeddings.values()]
    size = len(links) * unit[0].shape[1] * unit[0].element_size()
    ring = ring and processes() > 1 and size > rings.GATHER_BYTES
    gathered = [None, *(None if ring else rows.gather(x) for x in unit[1:])]
    both_of = list(combinations(range(len(unit)), 2))
    rounds = step.precision.rounds and all(x.dtype == torch.float32 for x in unit)
    kept = kept_bytes_on(links.device, len(both_of))
    pairs = []
    for a, b in both_of:
        x, y, all_y, ids, start = unit[a], unit[b], gathered[b], links[:, :, [a, b]], rows.start
        both, sizes = step.rows_with_here(a, b), rows.sizes
        if both is not None:
            own = step.own.rows_with(a, b)
            ids, x, sizes = ids[both], _rows(x, own), _sizes_among(both, rows)
            start = sum(sizes[: rank()])
            same = all_y is y
            y = _rows(y, own)
            if all_y is not None:
                all_y = y if same else _rows(all_y, step.rows_with(a, b))
        way = Ring(sizes) if ring else None
        pairs.append(Pair(x, y, all_y, ids, start, rounds, kept, step.number, way))
    return pairs


def _sizes_among(some: Tensor, rows: Rows) -> list[int]:
    """How many of some rows, in order, each process has."""
    ends = torch.searchsorted(some, torch.tensor(rows.sizes).cumsum(0))
    return ends.diff(prepend=ends.new_zeros(1)).tolist()


def _rows(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x[rows]


def sharing(pair: Pair) -> Excluded:
    """For a tile of own rows: which of all rows have a source in common with each, itself apart."""
    return sharing_by_block(pair)(slice(0, pair.count))


def sharing_by_block(pair: Pair) -> Callable[[slice], Excluded]:
    """`sharing` of some neighbours of all rows, as a function of these."""
    if _all_different(pair.ids):
        return lambda columns: none_excluded
    _, sources, modalities = pair.ids.shape
    ids = sent(pair.ids, pair.x.device)

    def of(columns: slice) -> Excluded:
        some = ids[columns]

        def shared(rows: slice) -> Tensor:
            own = slice(pair.start + rows.start, pair.start + rows.stop)
            size = own.stop - own.start, len(some)
            found = torch.zeros(size, dtype=torch.bool, device=ids.device)
            for m in range(modalities):
                for s in range(sources):
                    for t in range(sources):
                        found |= ids[own, s, m, None] == some[:, t, m]
            found.diagonal(own.start - columns.start).fill_(False)
            return found

        return shared

    return of


def _all_different(ids: Tensor) -> bool:
    n, sources, modalities = ids.shape
    return all(len(ids[:, :, m].unique()) == n * sources for m in range(modalities))


def positives(pair: Pair) -> tuple[Tensor, Tensor] | None:
    """(i, j) of all own rows i and rows j that share an item, themselves included, int64 `[p]`;
    None where no two rows do. They are found on the CPU."""
    if _all_different(pair.ids):
        return None
    n, sources, modalities = pair.ids.shape
    row_of = torch.arange(n).repeat_interleave(sources)
    codes = torch.cat([_alike(pair.ids[:, :, m].flatten(), row_of, n) for m in range(modalities)])
    codes = codes.unique()
    i, j = codes // n, codes % n
    other = (i != j) & (i >= pair.start) & (i < pair.start + len(pair.x))
    itself = torch.arange(len(pair.x))
    i = torch.cat([itself, i[other] - pair.start])
    j = torch.cat([itself + pair.start, j[other]])
    return sent(i, pair.x.device), sent(j, pair.x.device)


def _alike(ids: Tensor, row_of: Tensor, n: int) -> Tensor:
    """i n + j of the rows i and j of every two equal ids."""
    order = ids.argsort(stable=True)
    rows = row_of[order]
    _, counts = ids[order].unique_consecutive(return_counts=True)
    sizes = counts.repeat_interleave(counts)  # of each entry's group
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return rows.repeat_interleave(sizes) * n + rows[spread(first, sizes)]


def positives_of_each(pair: Pair, j: Tensor) -> Tensor:
    """How many positives each of all rows has `[n]`, from the columns of `positives`; collective.

    Sharing is symmetric: a row's count is that of its column.
    """
    return total(j.new_zeros(len(pair.ids)).index_add_(0, j, torch.ones_like(j)))


def weighted_sum(x: Tensor, y: Tensor, i: Tensor, j: Tensor, weights: Tensor) -> Tensor:
    """Σ w x_i · y_j over the index pairs (i, j), with gradients to x `[t, d]` and y `[n, d]`."""
    if x.device.type != "cpu":  # sparse products of a GPU are sorted first, which the CPU awaits
        return _WeightedSum.apply(x, y, i, j, weights)
    size = (len(x), len(y))
    chosen = torch.sparse_coo_tensor(torch.stack([i, j]), weights, size, check_invariants=False)
    return (x * torch.sparse.mm(chosen, y)).sum()


class _WeightedSum(torch.autograd.Function):
    """The sum in parts of `_PART` pairs, whose rows are gathered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, i: Tensor, j: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, y, i, j, weights)
        found = x.new_zeros(())
        for rows, columns, own in _parts(i, j, weights):
            found += ((x[rows] * y[columns]).sum(dim=1) * own).sum()
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, y, i, j, weights = ctx.saved_tensors
        grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
        for rows, columns, own in _parts(i, j, weights):
            share = (grad * own)[:, None]
            grad_x.index_add_(0, rows, share * y[columns])
            grad_y.index_add_(0, columns, share * x[rows])
        return grad_x, grad_y, None, None, None


def _parts(*values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(x.split(_PART) for x in values), strict=True)


def no_loss(embeddings: Mapping[str, Tensor]) -> Tensor:
    """0 with a gradient of 0: the loss of a batch that has nothing to compare."""
    return torch.stack([x.sum() for x in embeddings.values()]).sum() * 0


def unit_rows(x: Tensor) -> Tensor:
    """Rows of norm 1 in float32, or float64 if they are."""
    return normalize(x if x.dtype == torch.float64 else x.float(), dim=-1, eps=1e-12)
