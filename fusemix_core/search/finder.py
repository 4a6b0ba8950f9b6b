"""From vectors that are near to a query to the items they belong to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set
from threading import Lock

import numpy as np

from fusemix_core.search.items import ItemTable, Record
from fusemix_core.search.lookup import Lookup
from fusemix_core.vectors import Index

_MASKS = 16
"""Conditions whose items are remembered."""
_MARGIN = 8
"""Candidates beyond those asked for: scores that are equal but for rounding may change places."""


class Finder:
    """Finds the best items of a collection; remembers which items pass recent conditions. Threads
    may share it."""

    def __init__(self) -> None:
        self._masks: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def clear(self) -> None:
        """Forget the conditions: the collection has changed."""
        with self._lock:
            self._masks.clear()

    def find(
        self,
        index: Index,
        table: ItemTable,
        target: str,
        lifted: np.ndarray,
        wanted: int,
        where: str | None,
        exclude: Set[str],
    ) -> list[Record]:
        """The records of the best items and a few more. Vectors without an item (another process
        may be at work) are passed over.

        Args:
            index, table: Of the collection.
            target: The modality of the index.
            lifted: The query, float32 `[1, d + K]`.
            wanted: How many items.
            where: A condition that they pass.
            exclude: Keys of items to leave out, in hex.
        """
        allowed = None if not where else self._mask(index, table, target, where)
        count = wanted + len(exclude) + _MARGIN
        while wanted:
            keys = [key.tobytes() for key in index.search(lifted, count, allowed)[0][0]]
            known = table.records(keys)
            found = [known[k] for k in keys if k in known and k.hex() not in exclude]
            found = [one for one in found if one.modality == target]
            if len(found) >= wanted or len(keys) < count:
                return found
            count *= 2
        return []

    def _mask(self, index: Index, table: ItemTable, target: str, where: str) -> np.ndarray:
        """bool, in the order of the index's keys: the items that pass a condition."""
        condition = table.condition(where)
        with self._lock:
            known = self._masks.get((target, where))
            if known is None or len(known) != len(index):
                places = Lookup(index.keys).find(table.keys(target, condition))
                known = np.zeros(len(index), bool)
                known[places[places >= 0]] = True
                self._masks[target, where] = known
                while len(self._masks) > _MASKS:
                    self._masks.popitem(last=False)
            return known
