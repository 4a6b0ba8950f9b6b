"""How well the two items of a pair fit, compared with items that they are not paired with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.numerics import exact

NEAREST = 10
"""Others whose mean similarity is what a pair must beat; the usual number for CSLS."""
OTHERS = 20_000
"""Items that a pair is compared with. Of more, so many at equal distances."""
UNPAIRED = 100_000
"""Scores of unpaired items that a distribution is made of, about."""

_ROWS = 256
"""Queries compared with all others at once."""
_ROUNDING = 2e-6
"""Scores that differ by less are equal."""
_PAIRED = 64
"""Pairs scored at once by a scorer that gives `[n, n]`."""

Scores = Callable[[Tensor], Tensor]
"""Queries `[n, d]` → their scores `[n, g]` against a fixed gallery."""


@dataclass(frozen=True)
class Others:
    """Items of one modality that queries are compared with.

    Attributes:
        ids: sorted int64 `[g]`.
        rows: unit-norm `[g, d]`.
    """

    ids: np.ndarray
    rows: Tensor

    @classmethod
    def sample(cls, ids: np.ndarray, embed: Callable[[Tensor], Tensor]) -> Others:
        """At most `OTHERS` of the items `ids`, at equal distances, which `embed` embeds."""
        kept = np.unique(ids)
        if len(kept) > OTHERS:
            kept = kept[np.linspace(0, len(kept) - 1, OTHERS).astype(np.int64)]
        return cls(kept, embed(torch.from_numpy(kept)))


class Partners:
    """Which of the others belong to a query: they are not counted against it.

    Args:
        queries, targets: int64 `[m]`, the items of all known pairs, -1 if one is missing.
        others: the items of the target's modality.
    """

    def __init__(self, queries: np.ndarray, targets: np.ndarray, others: Others) -> None:
        at = np.searchsorted(others.ids, targets).clip(0, max(len(others.ids) - 1, 0))
        known = (queries >= 0) & (targets >= 0)
        known &= others.ids[at] == targets if len(others.ids) else False
        pairs = np.unique(np.stack([queries[known], at[known]], axis=1), axis=0)
        self._queries, self._at = pairs[:, 0], pairs[:, 1]

    def of(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(position in `queries`, position in the others) of each partner."""
        low = np.searchsorted(self._queries, queries, "left")
        counts = np.searchsorted(self._queries, queries, "right") - low
        rows = np.repeat(np.arange(len(queries)), counts)
        within = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        return rows, self._at[low[rows] + within]


@dataclass(frozen=True)
class Found:
    """The place of each query's partner among the others, one entry per query.

    Attributes:
        rank: int64, of the own partner, from 1: others that score as high count as higher.
        near: the mean score of the `NEAREST` others.
        best: int64 id of the item that scores highest; -1 without others.
        beats: whether it scores higher than the own partner.
    """

    rank: Tensor
    near: Tensor
    best: Tensor
    beats: Tensor


@exact()
@torch.no_grad()
def among(
    queries: Tensor,
    ids: np.ndarray,
    own: Tensor,
    others: Others,
    partners: Partners,
    scores: Scores | None = None,
) -> Found:
    """Compare pairs with the items that they could have been made of.

    Args:
        queries: unit-norm `[n, d]`, one row for each pair.
        ids: int64 `[n]`, which items they are.
        own: `[n]`, the score of each with its partner.
        others: of the partner's modality.
        partners: of the queries, which are left out.
        scores: against `others`; the cosine if None.
    """
    scores = scores or (lambda some: some @ others.rows.T)
    count = len(others.ids)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(queries), _ROWS):
        part = slice(start, start + _ROWS)
        tile = scores(queries[part]).float()  # [r, g]
        rows, at = partners.of(ids[part])
        tile[torch.from_numpy(rows), torch.from_numpy(at)] = -torch.inf
        rank = 1 + (tile >= own[part, None] - _ROUNDING).sum(dim=1)
        free = count - torch.bincount(torch.from_numpy(rows), minlength=len(tile))
        top = tile.topk(min(NEAREST, count), dim=1)
        real = top.values.isfinite()
        near = top.values.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        best = torch.from_numpy(others.ids)[top.indices[:, 0]] if count else rank.new_full((1,), -1)
        best = torch.where(free > 0, best, -1)
        beats = top.values[:, 0] > own[part] if count else free > 0
        parts.append((rank, near, best, beats))
    if not parts:
        nothing = torch.zeros(0, dtype=torch.long)
        return Found(nothing, torch.zeros(0), nothing, nothing.bool())
    return Found(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def paired_scores(
    score: Callable[[Tensor, Tensor, str, str], Tensor],
    first: Tensor,
    second: Tensor,
    modalities: tuple[str, str],
) -> Tensor:
    """The score `[n]` of row i of `first` with row i of `second`; the mean of both directions."""
    a, b = modalities
    parts = []
    for x, y in zip(first.split(_PAIRED), second.split(_PAIRED), strict=True):
        parts.append((score(x, y, a, b).diagonal() + score(y, x, b, a).diagonal()).float() / 2)
    return torch.cat(parts) if parts else torch.zeros(0)


def unpaired(links: np.ndarray, most: int = UNPAIRED, seed: int = 0) -> np.ndarray:
    """int64 `[u, 2]`: items of different pairs, drawn by seed, that no pair links.

    Args:
        links: int64 `[m, 2]` without missing items.
        most: how many, about.
    """
    if len(links) < 2:
        return np.zeros((0, 2), np.int64)
    random = np.random.default_rng(seed)
    times = min(len(links) - 1, -(-most // len(links)))
    shifts = 1 + random.choice(len(links) - 1, times, replace=False)
    order = random.permutation(len(links))
    shifted = [np.stack([links[order, 0], links[np.roll(order, s), 1]], axis=1) for s in shifts]
    drawn = np.concatenate(shifted)
    width = int(links[:, 1].max()) + 1
    known = np.isin(drawn[:, 0] * width + drawn[:, 1], links[:, 0] * width + links[:, 1])
    return drawn[~known][:most]


def percentiles(values: Tensor, of: Tensor) -> Tensor:
    """The percentage `[n]` of the scores `of` that are below each value; NaN without any."""
    if not len(of):
        return torch.full((len(values),), torch.nan)
    return 100 * torch.searchsorted(of.sort().values, values.contiguous()).float() / len(of)
