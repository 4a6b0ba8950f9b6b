"""Thumbnails that are kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict


class Thumbs:
    """The latest thumbnails, of `most` bytes together."""

    def __init__(self, most: int = 64 << 20) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """That of a key, if it is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, data: bytes) -> None:
        """Keep one, and drop the oldest if there are too many."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = data
            self._size += len(data)
            while self._size > self._most:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped)
