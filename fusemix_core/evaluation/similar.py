"""Items that are nearly the same, and items unlike all others, by the latents of one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import LatentTable, rows_of
from fusemix_core.numerics import exact

THRESHOLD = 0.95
"""The cosine of centred latents from which on two items are near-duplicates."""
NEAREST = 10
"""Neighbours whose mean cosine says how common an item is."""
UNLIKE = 4.0
"""Robust standard deviations below the median from which on an item is an outlier."""
FEWEST = 30
"""With fewer items none is called an outlier."""

_ROWS, _COLUMNS = 1_024, 16_384
_READ = 8_192
_MOST = 20_000_000
"""Pairs of near-duplicates that are kept."""


@dataclass(frozen=True)
class Similar:
    """How alike the items of one modality are.

    Attributes:
        pairs: int64 `[p, 2]`, i < j: near-duplicates; cosines: `[p]`.
        nearness: float `[n]`, the mean cosine of each item to its nearest; NaN of a lone one.
    """

    pairs: np.ndarray
    cosines: np.ndarray
    nearness: np.ndarray

    def outliers(self) -> np.ndarray:
        """int64, the most unusual first: items much further from their nearest than usual."""
        known = ~np.isnan(self.nearness)
        if known.sum() < FEWEST:
            return np.zeros(0, np.int64)
        low = self.limit()
        rows = np.flatnonzero(known & (self.nearness < low))
        return rows[np.argsort(self.nearness[rows], kind="stable")]

    def limit(self) -> float:
        """The nearness below which an item is an outlier."""
        known = self.nearness[~np.isnan(self.nearness)]
        middle = float(np.median(known))
        return middle - UNLIKE * 1.4826 * float(np.median(np.abs(known - middle)))


def centred_rows(table: LatentTable, ids: Tensor) -> Tensor:
    """float32 `[n, d]`: latents of items, less their mean, at unit norm.

    Encoders place all items to one side of the origin, each as far as it likes. Without the mean,
    one threshold suits several of them.
    """
    rows = torch.cat([rows_of(table, part).float().cpu() for part in ids.split(_READ)])
    if len(rows) > 2:
        rows -= rows.mean(dim=0)
    return normalize(rows, dim=1)


@exact()
@torch.no_grad()
def similar(rows: Tensor, threshold: float = THRESHOLD) -> Similar:
    """Compare all items with each other, exactly, in blocks of bounded memory.

    Args:
        rows: unit-norm `[n, d]`.
        threshold: the cosine of near-duplicates.

    Raises:
        ConfigError: there are more near-duplicates than anybody could use.
    """
    n, near = len(rows), min(NEAREST, len(rows) - 1)
    found, cosines, nearness, count = [], [], [], 0
    for start in range(0, n, _ROWS):
        best: Tensor | None = None
        own = rows[start : start + _ROWS]
        for left in range(0, n, _COLUMNS):
            tile = own @ rows[left : left + _COLUMNS].T
            i, j = (tile >= threshold).nonzero(as_tuple=True)
            later = j + left > i + start
            i, j = i[later], j[later]
            found.append(torch.stack([i + start, j + left], dim=1).numpy())
            cosines.append(tile[i, j].numpy())
            count += len(i)
            if count > _MOST:
                raise ConfigError(
                    f"More than {_MOST:,} pairs of items have a similarity of {threshold:g}.",
                    "Raise --threshold.",
                )
            first, last = max(start, left), min(start + len(own), left + tile.shape[1])
            same = torch.arange(first, max(first, last))
            tile[same - start, same - left] = -torch.inf
            top = tile.topk(min(max(near, 0), tile.shape[1]), dim=1).values
            both = top if best is None else torch.cat([best, top], dim=1)
            best = both.topk(min(near, both.shape[1]), dim=1).values
        if near > 0 and best is not None:
            nearness.append(best.mean(dim=1).numpy())
    if near < 1:
        nearness = [np.full(n, np.nan, np.float32)]
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    return Similar(pairs, np.concatenate(cosines or [np.zeros(0)]), np.concatenate(nearness))


def kept_of(found: Similar, order: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """int64 `[n]`: for each item the one that is kept in its place, itself if it is kept.

    In the given order, the best first, an item is kept unless it is a near-duplicate of one that is
    kept already. It then belongs to the most similar of these. So every item that is
    left out is a near-duplicate of the one kept in its place: no chains.

    Args:
        order: all items, or those that are in a pair.
        count: how many items there are.
    """
    near: dict[int, list[tuple[float, int]]] = {}
    for (i, j), cosine in zip(found.pairs.tolist(), found.cosines.tolist(), strict=True):
        near.setdefault(i, []).append((cosine, j))
        near.setdefault(j, []).append((cosine, i))
    kept = np.arange(count)
    done: set[int] = set()
    for item in map(int, order):
        reach = [(cosine, -other) for cosine, other in near.get(item, ()) if other in done]
        if reach:
            kept[item] = -max(reach)[1]
        else:
            done.add(item)
    return kept
