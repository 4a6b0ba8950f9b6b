"""Where keys are in a list of keys."""

from __future__ import annotations

import numpy as np

_FEW = 64
"""Keys that are asked for before sorting pays."""


class Lookup:
    """Positions by key; sorted on first use, so that a search that needs none pays nothing.

    Args:
        keys: uint64 `[n, 2]`, all different.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self.keys = keys
        self._asked = 0
        self._order: np.ndarray | None = None
        self._sorted: np.ndarray | None = None

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int64 `[m]`: the position of each key, -1 if it isn't there."""
        keys = np.asarray(keys, "<u8").reshape(-1, 2)
        self._asked += len(keys)
        if self._sorted is None and self._asked <= _FEW:
            return self._one_by_one(keys)
        asked = _as_bytes(keys)
        if self._order is None or self._sorted is None:
            whole = _as_bytes(self.keys)
            self._order = np.argsort(whole, kind="stable")
            self._sorted = whole[self._order]
        if not len(self._sorted):
            return np.full(len(asked), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
        return np.where(self._sorted[at] == asked, self._order[at], -1)

    def _one_by_one(self, keys: np.ndarray) -> np.ndarray:
        """`find` of few keys, without an order."""
        out = np.full(len(keys), -1, np.int64)
        for i, (first, second) in enumerate(keys.tolist()):
            at = np.flatnonzero(self.keys[:, 0] == np.uint64(first))
            at = at[self.keys[at, 1] == np.uint64(second)]
            out[i] = at[0] if len(at) else -1
        return out


def _as_bytes(keys: np.ndarray) -> np.ndarray:
    """Each key as one value that can be sorted. numpy ignores trailing zeros of such byte strings,
    which doesn't matter if all have one length."""
    whole = np.ascontiguousarray(np.asarray(keys, "<u8").reshape(-1, 2))
    return whole.view("S16").reshape(-1)
