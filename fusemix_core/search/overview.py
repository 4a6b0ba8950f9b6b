"""All items of a collection at once, in one order: for a map of them, and for browsing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fusemix_core.search.items import ItemTable
from fusemix_core.search.lookup import Lookup
from fusemix_core.vectors import Index


class Overview:
    """The items of one state of a collection, in a fixed order. Threads may share it.

    Args:
        version: the name of the state; another one has another order.
        table: the items of the state.
        indexes: modality → its vectors.
        dim: numbers per embedding.

    Example:
        view = photos.overview()
        recent = [key for key, fits in zip(view.keys, view.matching("year > 2020")) if fits]
    """

    def __init__(
        self, version: str, table: ItemTable, indexes: Mapping[str, Index], dim: int
    ) -> None:
        from fusemix_core.search.building import plane

        self.version, self._table = version, table
        self._keys: dict[str, np.ndarray] = {}
        points = [np.zeros((0, 2), np.float32)]
        for modality, index in indexes.items():
            there = Lookup(table.keys(modality)).find(index.keys) >= 0
            self._keys[modality] = index.keys[there]
            points.append(plane(index, dim)[there])
        self.points = np.concatenate(points)
        """float32 `[n, 2]`: the items on the plane of their two main directions."""

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def keys(self) -> list[str]:
        """The keys in hex."""
        return [key.tobytes().hex() for keys in self._keys.values() for key in keys]

    def values(self, column: str) -> list[Any]:
        """The value of a column for each item, None if it has none; `modality` is a column, too.

        Raises:
            ConfigError: There is no such column.
        """
        found: list[Any] = []
        for modality, keys in self._keys.items():
            own = self._table.values(column, modality)
            found += [own.get(key.tobytes()) for key in keys]
        return found

    def matching(self, where: str) -> np.ndarray:
        """bool `[n]`: the items that pass a condition.

        Raises:
            ConfigError: The condition can't be read.
        """
        condition = self._table.condition(where)
        parts = [np.zeros(0, bool)]
        for modality, keys in self._keys.items():
            parts.append(Lookup(self._table.keys(modality, condition)).find(keys) >= 0)
        return np.concatenate(parts)
