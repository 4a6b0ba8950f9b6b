"""Ranks of the true partners of each query in a gallery, in tiles of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.batch import sent
from fusemix_core.errors import ContractError
from fusemix_core.measured import Score
from fusemix_core.numerics import at_least_float32, exact

MAX_SCORES, MAX_SCORES_THERE = 1 << 22, 1 << 27
"""Scores held at once: 16 MiB in float32, few enough to stay near the processor; and on an
accelerator, where starting work is what costs."""

_FEW = 8
"""Up to so many positives a query, comparing with each is faster than sorting the tile."""


def cosine(queries: Tensor, gallery: Tensor, query: str, target: str) -> Tensor:
    """The cosine of unit-norm rows, as a `Score`."""
    return queries @ gallery.T


@dataclass(frozen=True)
class Positives:
    """Who belongs to whom in one direction of a split.

    queries: int64 `[n]`, sorted ids of the items that have a partner. gallery: int64 `[m]`, sorted
    ids of all items of the target modality in the links. pairs: int64 `[E, 2]`, unique positions
    in `queries` and in `gallery`, in lexicographic order; every query occurs.
    """

    queries: Tensor
    gallery: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, links: Tensor, query: int, target: int) -> Positives:
        """From links int64 `[m, K]` (-1 where missing), between two of its columns."""
        columns = links[:, [query, target]]
        gallery = columns[columns[:, 1] >= 0, 1].unique()
        linked = columns[(columns >= 0).all(dim=1)].unique(dim=0)
        queries, first = linked[:, 0].unique(return_inverse=True)
        second = torch.searchsorted(gallery, linked[:, 1].contiguous())
        return cls(queries, gallery, torch.stack([first, second], dim=1))

    def sides(
        self,
        embeddings: Mapping[str, Tensor],
        query: str,
        target: str,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The embeddings of the queries `[n, d]` and of the gallery `[m, d]`, on `device`."""
        queries, gallery = (
            at_least_float32(embeddings[m][ids.to(embeddings[m].device)]).to(device)
            for m, ids in ((query, self.queries), (target, self.gallery))
        )
        return queries, gallery


@dataclass(frozen=True)
class Ranks:
    """What the metrics are made of, one entry per query.

    best: int64 `[n]`, the 0-based rank of the best-ranked positive; `gallery` where no positive has
    a score. average_precision: float64 `[n]` in 0..1, over all positives. gallery: its size.
    """

    best: Tensor
    average_precision: Tensor
    gallery: int

    def hits(self, k: int) -> Tensor:
        """bool `[n]`: whether a positive is among the first k."""
        return self.best < min(k, self.gallery)


@exact()
@torch.no_grad()
def rank(
    queries: Tensor,
    gallery: Tensor,
    pairs: Tensor,
    score: Callable[[Tensor, Tensor], Tensor],
    max_scores: int | None = None,
) -> Ranks:
    """Rank the positives of queries `[n, d]` in a gallery `[m, d]`; `pairs` as in `Positives`.

    `score` gives `[q, c]` for a tile of each, of at most `max_scores` scores (None: as many as suit
    the device).

    The rank of a positive is the number of negatives that do not score strictly lower: a tie counts
    against the query, so equal embeddings for all items earn nothing, and so does a NaN. Other
    positives ahead of it count for its precision but not for the best rank, as the best has none.
    """
    n, m = len(queries), len(gallery)
    if max_scores is None:
        max_scores = MAX_SCORES if queries.device.type == "cpu" else MAX_SCORES_THERE
    rows, columns = _tile_shape(n, m, max_scores)
    pairs = pairs.cpu()  # where they decide on shapes, so that nothing waits for the device
    ends = torch.searchsorted(pairs[:, 0].contiguous(), torch.arange(n + 1)).tolist()
    found = _Found(m)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        own = pairs[ends[start] : ends[stop]] - pairs.new_tensor([start, 0])
        tiles = _Tiles(queries[start:stop], gallery, own, columns, score)
        found.add(*_rank_chunk(tiles))
    return Ranks(*found.all(), m)


@torch.no_grad()
def rank_direction(
    embeddings: Mapping[str, Tensor],
    links: Tensor,
    query: str,
    target: str,
    score: Score = cosine,
    device: torch.device | str | None = None,
    max_scores: int | None = None,
) -> tuple[Positives, Ranks | None]:
    """The positives of `links` from `query` to `target`, and their ranks (None: there are none)."""
    modalities = list(embeddings)
    positives = Positives.of(links.cpu(), modalities.index(query), modalities.index(target))
    if not len(positives.queries):
        return positives, None
    sides = positives.sides(embeddings, query, target, device)

    def tile(rows: Tensor, columns: Tensor) -> Tensor:
        return score(rows, columns, query, target)

    return positives, rank(*sides, positives.pairs, tile, max_scores)


def _tile_shape(n: int, m: int, max_scores: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole rows (one pass) unless fewer than 64 would fit."""
    if m * min(n, 64) <= max_scores:
        return max(1, min(n, max_scores // m)), m
    rows = max(1, min(n, int(max_scores**0.5)))
    return rows, max(1, max_scores // rows)


class _Tiles:
    """The scores of a chunk of queries against the gallery, a tile of columns at a time."""

    def __init__(
        self,
        queries: Tensor,
        gallery: Tensor,
        pairs: Tensor,
        columns: int,
        score: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.queries, self.gallery, self.pairs, self.columns = queries, gallery, pairs, columns
        self._score = score
        self._only = self._tile(0) if columns >= len(gallery) else None

    def _tile(self, start: int) -> Tensor:
        rows = self.gallery[start : start + self.columns]
        scores = self._score(self.queries, rows)
        if scores.shape != (len(self.queries), len(rows)):
            raise ContractError(
                "The scorer",
                f"scores of shape {(len(self.queries), len(rows))}",
                f"{tuple(scores.shape)}",
            )
        return scores

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(scores `[q, c]`; the numbers, rows and columns of those of `pairs` inside) of each tile.

        A second pass scores the same tiles again, so that a positive equals itself to the last bit.
        """
        for start in range(0, len(self.gallery), self.columns):
            scores = self._tile(start) if self._only is None else self._only
            column = self.pairs[:, 1] - start
            inside = ((column >= 0) & (column < scores.shape[1])).nonzero()[:, 0]
            rows, columns = self.pairs[inside, 0], column[inside]
            device = scores.device
            yield scores, sent(inside, device), sent(rows, device), sent(columns, device)


def _rank_chunk(tiles: _Tiles) -> tuple[Tensor, Tensor, Tensor]:
    """(how many are ahead of each query's positives `[q, P]`, how many of these have a score `[q]`,
    both on the device; how many there are `[q]`, on the CPU) of one chunk of queries."""
    row, q, m = tiles.pairs[:, 0], len(tiles.queries), len(tiles.gallery)
    own = torch.bincount(row, minlength=q)
    slot = torch.arange(len(row)) - (own.cumsum(0) - own)[row]

    flat = None
    for scores, inside, rows, column in tiles:
        if flat is None:
            flat = scores.new_empty(len(row))
        flat[inside] = scores[rows, column]

    assert flat is not None  # there is a positive, so there is a tile
    row, slot, count = (sent(one, flat.device) for one in (row, slot, own))
    found = torch.zeros(q, dtype=torch.long, device=row.device)
    found.index_add_(0, row, (~flat.isnan()).long())
    wanted = flat.new_full((q, int(own.max())), -torch.inf)  # [q, P], unscored positives last
    wanted[row, slot] = flat.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    wanted = wanted.sort(dim=1, descending=True).values

    ahead = torch.zeros(wanted.shape, dtype=torch.long, device=row.device)
    for scores, _, rows, column in tiles:
        negatives = scores.clone()
        negatives[rows, column] = -torch.inf
        ahead += _count_not_below(negatives, wanted)
    # Masked positives, too, are not below a positive that itself scores -inf.
    return ahead.minimum((m - count)[:, None]), found, own


class _Found:
    """What was found of chunks of queries, in a gallery of `m`. It is read from the device when
    there is much of it, not chunk by chunk, as that waits."""

    def __init__(self, m: int) -> None:
        self._m, self._there, self._held = m, [], 0
        self._best, self._precision = [], []

    def add(self, ahead: Tensor, found: Tensor, own: Tensor) -> None:
        """Take what `_rank_chunk` returns."""
        self._there.append((torch.cat([ahead, found[:, None]], dim=1), own))
        self._held += ahead.numel()
        if self._held > MAX_SCORES:
            self._read()

    def all(self) -> tuple[Tensor, Tensor]:
        """(best ranks, average precisions) of all queries."""
        self._read()
        return torch.cat(self._best), torch.cat(self._precision)

    def _read(self) -> None:
        if not self._there:
            return
        shapes = [there.shape for there, _ in self._there]
        here = torch.cat([there.flatten() for there, _ in self._there]).cpu()
        parts = here.split([shape.numel() for shape in shapes])
        for part, shape, (_, own) in zip(parts, shapes, self._there, strict=True):
            ahead, found = part.view(shape)[:, :-1], part.view(shape)[:, -1]
            self._best.append(torch.where(found > 0, ahead[:, 0], self._m))
            place = torch.arange(1, ahead.shape[1] + 1)
            precision = place.double() / (ahead + place)  # float64 is not on every device
            precision = precision.masked_fill(place > found[:, None], 0).sum(dim=1) / own
            self._precision.append(precision)
        self._there, self._held = [], 0


def _count_not_below(scores: Tensor, wanted: Tensor) -> Tensor:
    """For each of `wanted [q, P]`, how many of its row of `scores [q, c]` are not below it."""
    if wanted.shape[1] <= _FEW:
        below = [_count(scores < wanted[:, j, None]) for j in range(wanted.shape[1])]
        return scores.shape[1] - torch.stack(below, dim=1)
    above_all = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    below = torch.searchsorted(above_all.sort(dim=1).values, wanted.contiguous())
    return scores.shape[1] - below


def _count(mask: Tensor) -> Tensor:
    """How many are true in each row, int64 `[q]`."""
    if mask.device.type == "cpu":  # five times as fast as torch's sum
        return torch.from_numpy(np.count_nonzero(mask.numpy(), axis=1))
    return mask.sum(dim=1)
