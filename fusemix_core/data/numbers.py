"""Numbers of things, such as the items in a column of links: many gathered, and sets of them."""

from __future__ import annotations

from array import array

import numpy as np

_SPARE = 1 << 20


class Growing:
    """Numbers of one type that come one by one or many at a time.

    Args:
        kind: as of `array.array`.
    """

    def __init__(self, kind: str) -> None:
        self._ones, self._many, self._before = array(kind), [], 0
        self.append, self.extend = self._ones.append, self._ones.extend

    def __len__(self) -> int:
        return self._before + len(self._ones)

    def add(self, values: np.ndarray) -> None:
        """Append all of an array; a copy is kept."""
        self._flush()
        self._many.append(np.array(values, self._ones.typecode).reshape(-1))
        self._before += self._many[-1].size

    def values(self) -> np.ndarray:
        """All so far, as one array; what is changed in it is changed here."""
        self._flush()
        if len(self._many) != 1:
            self._many = [np.concatenate([np.zeros(0, self._ones.typecode), *self._many])]
        return self._many[0]

    def _flush(self) -> None:
        if self._ones:
            self._many.append(np.array(self._ones, self._ones.typecode))
            self._before += len(self._ones)
            del self._ones[:]


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
