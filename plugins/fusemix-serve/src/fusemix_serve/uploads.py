"""Files that the page searches by: kept in memory for a while, known by their content."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from fusemix_serve.inputs import Raw
from fusemix_serve.replies import Refused


class Uploads:
    """The latest uploads; the oldest are dropped first. Used by the event loop only.

    Args:
        most: bytes that are kept.
        count: uploads that are kept.
    """

    def __init__(self, most: int = 128 << 20, count: int = 256) -> None:
        self._most, self._count = most, count
        self._kept: OrderedDict[str, Raw] = OrderedDict()
        self._size = 0

    def add(self, raw: Raw) -> str:
        """Keep an item; its id, the same for the same content."""
        digest = hashlib.sha256(f"{raw.modality}\0".encode() + raw.value)
        name = digest.hexdigest()[:32]
        if name not in self._kept:
            self._size += len(raw.value)
            self._kept[name] = raw
        self._kept.move_to_end(name)
        while len(self._kept) > self._count or (self._size > self._most and len(self._kept) > 1):
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped.value)
        return name

    def get(self, name: str) -> Raw:
        """The item of an id. Raises `Refused` if it is no longer kept."""
        if name not in self._kept:
            raise Refused(
                404,
                "The server no longer has this file.",
                "Drop or record it again.",
                code="upload_gone",
            )
        self._kept.move_to_end(name)
        return self._kept[name]
