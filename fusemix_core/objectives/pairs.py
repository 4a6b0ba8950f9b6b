"""The pairs of modalities of a batch, and which of its rows share an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.gathering import total
from fusemix_core.objectives.tiles import KEPT_BYTES, Excluded, kept_bytes_on, none_excluded
from fusemix_core.step import Step

_MASK_BYTES = 1 << 25


@dataclass(frozen=True)
class Pair:
    """The rows that have both of two modalities, of unit norm in float32 (float64 if they are).

    x, y: rows of this process `[t, d]`, of the first and the second modality. all_y: the second
    modality's rows of all processes `[n, d]`, among which the own ones start at `start`. ids: the
    sources `[n, S, 2]` of all rows. In one process t = n and y is all_y. rounds: whether products
    of the rows may be taken in half precision; kept_bytes: what a loss of them may keep; step: how
    many were done before.
    """

    x: Tensor
    y: Tensor
    all_y: Tensor
    ids: Tensor
    start: int
    rounds: bool = False
    kept_bytes: int = KEPT_BYTES
    step: int = 0

    @property
    def own(self) -> slice:
        """This process's rows among all."""
        return slice(self.start, self.start + len(self.x))


def pairs_of(step: Step) -> list[Pair]:
    """Each pair of modalities, in the order of `combinations`; collective, see `gathering`."""
    rows, links, present = step.rows, step.links, step.present
    complete = bool(present.all())
    unit = [unit_rows(x) for x in step.own.embeddings.values()]
    gathered = [None, *(rows.gather(x) for x in unit[1:])]
    both_of = list(combinations(range(len(unit)), 2))
    rounds = step.precision.rounds and all(x.dtype == torch.float32 for x in unit)
    kept = kept_bytes_on(links.device, len(both_of))
    pairs = []
    for a, b in both_of:
        x, y, all_y, ids, start = unit[a], unit[b], gathered[b], links[:, :, [a, b]], rows.start
        if not complete:
            both = present[:, a] & present[:, b]
            own = both[rows.own].nonzero()[:, 0]
            start = int(both[:start].sum())
            x, ids = x[own], ids[both]
            y, all_y = (y[own],) * 2 if all_y is y else (y[own], all_y[both])
        pairs.append(Pair(x, y, all_y, ids, start, rounds, kept, step.number))
    return pairs


def sharing(pair: Pair) -> Excluded:
    """For a tile of own rows: which of all rows have a source in common with each, itself apart."""
    n, sources, modalities = pair.ids.shape
    ids = pair.ids
    if all(len(ids[:, :, m].unique()) == n * sources for m in range(modalities)):
        return none_excluded

    def shared(rows: slice) -> Tensor:
        own = slice(pair.start + rows.start, pair.start + rows.stop)
        found = torch.zeros(own.stop - own.start, n, dtype=torch.bool, device=ids.device)
        for m in range(modalities):
            for s in range(sources):
                for t in range(sources):
                    found |= ids[own, s, m, None] == ids[:, t, m]
        found[:, own].fill_diagonal_(False)
        return found

    return shared


def positives(pair: Pair) -> tuple[Tensor, Tensor] | None:
    """(i, j) of all own rows i and rows j that share an item, themselves included, int64 `[p]`;
    None where no two rows do."""
    shared = sharing(pair)
    if shared is none_excluded:
        return None
    n, device = len(pair.ids), pair.ids.device
    itself = torch.arange(len(pair.x), device=device)
    found = [torch.stack([itself, itself + pair.start])]
    step = max(_MASK_BYTES // n, 1)
    for first in range(0, len(pair.x), step):
        i, j = shared(slice(first, min(first + step, len(pair.x)))).nonzero().T
        found.append(torch.stack([i + first, j]))
    i, j = torch.cat(found, dim=1)
    return i, j


def positives_of_each(pair: Pair, j: Tensor) -> Tensor:
    """How many positives each of all rows has `[n]`, from the columns of `positives`; collective.

    Sharing is symmetric: a row's count is that of its column.
    """
    return total(torch.bincount(j, minlength=len(pair.ids)))


def weighted_sum(x: Tensor, y: Tensor, i: Tensor, j: Tensor, weights: Tensor) -> Tensor:
    """Σ w x_i · y_j over the index pairs (i, j), with gradients to x `[t, d]` and y `[n, d]`."""
    size = (len(x), len(y))
    chosen = torch.sparse_coo_tensor(torch.stack([i, j]), weights, size, check_invariants=False)
    return (x * torch.sparse.mm(chosen, y)).sum()


def no_loss(embeddings: Mapping[str, Tensor]) -> Tensor:
    """0 with a gradient of 0: the loss of a batch that has nothing to compare."""
    return sum(x.sum() for x in embeddings.values()) * 0


def unit_rows(x: Tensor) -> Tensor:
    """Rows of norm 1 in float32, or float64 if they are."""
    return normalize(x if x.dtype == torch.float64 else x.float(), dim=-1, eps=1e-12)
