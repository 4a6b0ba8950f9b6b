"""Stamps: which files of a view have been read whole and found right, so that they need not be read
again while they are unchanged."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from fusemix_core.disk import make_folder, write_atomically

State = tuple[int, int, int, int]
"""Of a file: inode, size, times of modification and of change in ns. A write changes the last."""

NAME = "verified.json"
STAMPED = 64 << 20
"""Bytes. Where verification reads less, it takes no time worth a file of stamps."""
_SETTLED = 2_000_000_000
"""Nanoseconds. A file that changed more recently may change again within one tick of its clock."""


def state_of(path: Path) -> State:
    """The values that change when a file is replaced or written to. Raises OSError."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Stamps:
    """The stamps of one view, in its folder `index`: file name → its state and checksum.

    They are only a memory: if they can't be read or written, files are verified again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._read_at: State | None = None
        self._stamps: dict[str, list] = {}

    def checksum(self, name: str, state: State) -> str | None:
        """The checksum of a file that was found right and has the same state since, else None."""
        self._refresh()
        stamp = self._stamps.get(name)
        if not isinstance(stamp, list) or len(stamp) != 5 or tuple(stamp[:4]) != tuple(state):
            return None
        return str(stamp[4])

    def add(self, found: Mapping[str, tuple[State, str]]) -> None:
        """Remember name → (state before the file was read, checksum), if it has settled since."""
        limit = time.time_ns() - _SETTLED
        new = {
            n: [*state, digest] for n, (state, digest) in found.items() if max(state[2:]) < limit
        }
        if not new:
            return
        self._refresh()
        kept = {n: s for n, s in self._stamps.items() if self._exists(n)}
        with contextlib.suppress(OSError):
            make_folder(self.path.parent)
            content = json.dumps({**kept, **new}, indent=0, sort_keys=True)
            write_atomically(self.path, [content.encode()])

    def _exists(self, name: str) -> bool:
        return any((f / name).exists() for f in (self.path.parent, self.path.parent.parent))

    def _refresh(self) -> None:
        try:
            state = state_of(self.path)
            if state != self._read_at:
                found = json.loads(self.path.read_bytes())
                self._stamps = found if isinstance(found, dict) else {}
                self._read_at = state
        except (OSError, ValueError, RecursionError):
            self._stamps, self._read_at = {}, None
