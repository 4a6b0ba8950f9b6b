"""Sets of numbers of things, such as the items in a column of links, without sorting."""

from __future__ import annotations

import numpy as np

_SPARE = 1 << 20


def compact(values: np.ndarray) -> tuple[np.ndarray, int]:
    """(`np.unique`'s inverse of int64 `[n]`, each 0 or more; how many differ)."""
    highest = int(values.max(initial=-1))
    if highest > 4 * len(values) + _SPARE:
        distinct, inverse = np.unique(values, return_inverse=True)
        return inverse, len(distinct)
    seen = np.zeros(highest + 1, bool)
    seen[values] = True
    rank = np.cumsum(seen) - 1
    return rank[values], int(seen.sum())


def members(values: np.ndarray, count: int) -> np.ndarray:
    """bool `[count]`: which numbers below `count` are among int64 `[n]`; -1 is none."""
    seen = np.zeros(count + 1, bool)
    seen[values] = True
    return seen[:count]


def all_differ(values: np.ndarray, count: int) -> bool:
    """Whether no number below `count` is twice among int64 `[n]`, and none is -1."""
    return len(values) == 0 or (
        values.min() >= 0 and np.count_nonzero(members(values, count)) == len(values)
    )
