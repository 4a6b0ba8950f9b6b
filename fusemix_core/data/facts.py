"""Facts: further columns of the rows, such as a target, a trust, a group, a time or boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["number", "class", "text", "time", "box"]
TRUST = "trust"
"""The fact that says how far each row is to be trusted, from 0 (its items don't belong together)
to 1. Its missing values count as 1."""


@dataclass(frozen=True)
class Fact:
    """One further column of the rows of a dataset.

    Attributes:
        kind: `number`, `class`, `text`, `time` or `box`.
        values: by kind; the first axis is the row.
            `number`: float32 `[m]`, NaN where missing.
            `class`, `text`: int64 `[m]`, indices into `names`, -1 where missing.
            `time`: float64 `[m]`, seconds since 1970-01-01 UTC, NaN where missing.
            `box`: float32 `[m, 4]`, left, top, right, bottom, NaN where missing.
        names: the different classes, sorted, or the different texts in order of appearance.
    """

    kind: Kind
    values: np.ndarray
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: np.ndarray) -> Fact:
        """The fact of these rows (int64 indices or a bool mask), with all of its names."""
        return Fact(self.kind, self.values[rows], self.names)

    def with_missing(self, count: int) -> Fact:
        """The fact with `count` further rows, whose values are missing."""
        missing = -1 if self.kind in ("class", "text") else np.nan
        rows = np.full((count, *self.values.shape[1:]), missing, self.values.dtype)
        return Fact(self.kind, np.concatenate([self.values, rows]), self.names)
