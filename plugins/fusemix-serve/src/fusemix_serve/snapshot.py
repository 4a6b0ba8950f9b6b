"""A collection as the server uses it, and facts of one state that are worth remembering."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fusemix_core.search import Collection
    from fusemix_core.search.overview import Overview

_FREQUENT = 30
_COLOURS = 8


class Snapshot:
    """Facts of one state of a collection, found out when they are first needed.

    Args:
        collection: in that state.
    """

    def __init__(self, collection: Collection) -> None:
        self.version = collection.version
        self._collection = collection
        self._colours: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    @cached_property
    def view(self) -> Overview:
        """All items, with the map."""
        return self._collection.overview()

    @property
    def keys(self) -> list[str]:
        """The keys of all items, in the order of the map."""
        return self.view.keys

    @property
    def points(self) -> np.ndarray:
        """float32 `[n, 2]`: the places of the items on the map."""
        return self.view.points

    @cached_property
    def places(self) -> dict[str, int]:
        """Key → its place in that order."""
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def modalities(self) -> np.ndarray:
        """str `[n]`: the modality of each item, in the order of the map."""
        return np.array(self.view.values("modality"))

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """The columns with their range, or their values if there are few."""
        return [self._column(name, kind) for name, kind in self._collection.columns.items()]

    def _column(self, name: str, kind: str) -> dict[str, Any]:
        found = [(value, n) for value, n in self._collection.facets(name) if value is not None]
        if kind == "number":
            numbers = [value for value, _ in found] or [0]
            return {"name": name, "kind": kind, "min": min(numbers), "max": max(numbers)}
        column: dict[str, Any] = {"name": name, "kind": kind}
        if len(found) <= _FREQUENT or sum(n for _, n in found) > 4 * len(found):
            column["values"] = [{"value": v, "count": n} for v, n in found[:_FREQUENT]]
        return column

    def colours(self, column: str) -> dict[str, Any]:
        """Up to eight classes of a column, and that of each item, for a map."""
        with self._lock:
            if column not in self._colours:
                values = self.view.values(column)
                number = self._collection.columns.get(column) == "number"
                self._colours[column] = ranges(values) if number else names(values)
            return self._colours[column]


def inside_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """bool `[n]`: which points `[n, 2]` are inside a polygon `[m, 2]`, by the even-odd rule."""
    x, y = points[:, 0].astype(float), points[:, 1].astype(float)
    inside = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)
        inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def names(values: Sequence[Any]) -> dict[str, Any]:
    """The most frequent values as classes, and the others as one."""
    texts = ["" if value is None else str(value) for value in values]
    names, of = np.unique(np.array(texts, dtype=object), return_inverse=True)
    order = np.bincount(of, minlength=len(names)).argsort(kind="stable")[::-1]
    most = _COLOURS if len(names) <= _COLOURS else _COLOURS - 1
    place = np.full(len(names), most)
    place[order[:most]] = np.arange(min(most, len(names)))
    kept = [str(names[i]) or "(empty)" for i in order[:most]]
    return {"names": [*kept, *["other"] * (len(names) > most)], "of": place[of].tolist()}


def ranges(values: Sequence[Any]) -> dict[str, Any]:
    """Classes of as many items each, named by their ends."""
    numbers = np.array([math.nan if value is None else value for value in values], float)
    there = numbers[np.isfinite(numbers)]
    if not len(there):
        return {"names": ["(empty)"], "of": [0] * len(values)}
    classes = _COLOURS - 1
    edges = np.unique(np.quantile(there, np.linspace(0, 1, classes + 1)[1:-1]))
    of = np.searchsorted(edges, numbers, side="right")
    ends = [there.min(), *edges, there.max()]
    names = [f"{low:g}–{high:g}" for low, high in zip(ends, ends[1:], strict=False)]
    of[~np.isfinite(numbers)] = len(names)
    return {"names": [*names, *["(empty)"] * (len(there) < len(values))], "of": of.tolist()}
