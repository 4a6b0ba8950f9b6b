"""Facts: further columns of the rows, such as a target, a trust, a group, a time or a box."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["number", "class", "text", "time", "box", "grid"]
TRUST = "trust"
"""The fact that says how far each row is to be trusted, from 0 (its items don't belong together)
to 1. Its missing values count as 1. The column of this name is read for it unless another is named.
"""


@dataclass(frozen=True, eq=False)
class Fact:
    """One further column of the rows of a dataset.

    Attributes:
        kind: `number`, `class`, `text`, `time`, `box` or `grid`.
        values: by kind; the first axis is the row.
            `number`: float32 `[m]`, NaN where missing.
            `class`, `text`: int64 `[m]`, indices into `names`, -1 where missing.
            `time`: float64 `[m]`, seconds since 1970-01-01 UTC, NaN where missing.
            `box`: float32 `[m, 4]`, left, top, right, bottom, NaN where missing.
            `grid`: float32 `[m, H, W]`, NaN in cells that aren't known, and in all cells where
            missing.
        names: the different classes, sorted (as numbers if all are), or the different texts in
            order of appearance.

    Example:
        `dataset.facts["species"].names[dataset.facts["species"].values[0]]`
    """

    kind: Kind
    values: np.ndarray
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: np.ndarray | slice) -> Fact:
        """The fact of these rows (int64 indices, a bool mask or a slice), with all of its names."""
        return Fact(self.kind, self.values[rows], self.names)

    def with_missing(self, count: int) -> Fact:
        """The fact with `count` further rows, whose values are missing."""
        missing = -1 if self.kind in ("class", "text") else np.nan
        rows = np.full((count, *self.values.shape[1:]), missing, self.values.dtype)
        return Fact(self.kind, np.concatenate([self.values, rows]), self.names)

    @property
    def missing(self) -> np.ndarray:
        """bool `[m]`: the rows that have no value."""
        if self.kind in ("class", "text"):
            return self.values < 0
        absent = np.isnan(self.values)
        if self.kind == "grid":
            return np.all(absent, axis=(1, 2))
        return np.any(absent, axis=1) if self.kind == "box" else absent

    def digest(self) -> str:
        """The SHA-256 of its kind, names and values."""
        found = hashlib.sha256(self.values.tobytes())
        found.update(json.dumps([self.kind, self.names]).encode())
        return found.hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """What it is in short, for plans and results: kind, missing values, number of classes."""
        table: dict[str, Any] = {"kind": self.kind, "missing": int(self.missing.sum())}
        return {**table, "classes": len(self.names)} if self.kind == "class" else table


def trust_of(facts: Mapping[str, Fact], count: int) -> np.ndarray:
    """float32 `[count]`: how far each row is to be trusted, 1 if nothing is said."""
    if TRUST not in facts:
        return np.ones(count, np.float32)
    return np.nan_to_num(facts[TRUST].values, nan=1.0)
