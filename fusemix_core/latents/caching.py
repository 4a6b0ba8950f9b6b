"""The local cache of an object store's shards: what is there, and what must go."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from fusemix_core.latents import upkeep
from fusemix_core.latents.shards import SUFFIX, Shard

_SHARE = 0.8
"""Of the disk that is free, with what is cached already: what the cache takes by default."""
_NUMBERS = count()
_CLAIMS: dict[Path, dict[int, dict[str, int]]] = defaultdict(dict)
"""By cache, then by table: path → bytes of what that has mapped."""


class ShardCache:
    """The shards of all views of one object store in the folder `root`, `bound` bytes at most.

    The least recently used goes first, and nothing that a table has mapped: deleting that would
    free no disk. Heads are not counted: 16 bytes per item, 24 where items differ in length.
    """

    def __init__(self, root: Path, bound: int | None = None) -> None:
        self.root, self._bound = root, bound
        self._used: dict[str, float] = {}

    @property
    def bound(self) -> int:
        """Bytes. Without one given, a share of the disk, found at the first question."""
        if self._bound is None:
            held = sum(size for _, size, _ in self._held())
            folder = next(p for p in (self.root, *self.root.parents) if p.exists())
            self._bound = int(_SHARE * (held + shutil.disk_usage(folder).free))
        return self._bound

    @property
    def free(self) -> int:
        """Bytes that tables have not claimed, 0 or more."""
        return max(0, self.bound - sum(self._claims.values()))

    def fits(self, shards: Iterable[Shard]) -> bool:
        """Whether all these can be here at once, beside what this process's tables have claimed."""
        wanted = {str(shard.path): shard.size for shard in shards}
        return sum((self._claims | wanted).values()) <= self.bound

    def claimed(self, shards: Sequence[Shard], user: object) -> bool:
        """Whether they fit; if so, none is deleted as long as `user` lives."""
        if not self.fits(shards):
            return False
        wanted = {str(shard.path): shard.size for shard in shards}
        number = next(_NUMBERS)
        _CLAIMS[self.root][number] = wanted
        weakref.finalize(user, _CLAIMS[self.root].pop, number, None)
        return True

    @property
    def _claims(self) -> dict[str, int]:
        """Path → bytes, of all tables of this process."""
        return {
            path: size for one in list(_CLAIMS[self.root].values()) for path, size in one.items()
        }

    def touch(self, shards: Iterable[Shard]) -> None:
        """Note that these are used now."""
        self._used |= dict.fromkeys((str(shard.path) for shard in shards), time.time())

    def make_room(self, needed: int, keep: Iterable[Shard]) -> None:
        """Delete shards until `needed` bytes more are within the bound, but none of `keep`."""
        held = self._held()
        kept = {str(shard.path) for shard in keep} | self._claims.keys()
        over = sum(size for _, size, _ in held) + needed - self.bound
        for path, size, _ in sorted(held, key=lambda row: row[2]):
            if over <= 0:
                return
            if path not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    over -= size

    def _held(self) -> list[tuple[str, int, float]]:
        """(path, bytes, when it was used last) of each shard that is here."""
        found = []
        for view in upkeep.views(self.root):
            with os.scandir(view) as entries:
                for entry in entries:
                    if entry.name.endswith(SUFFIX):
                        with contextlib.suppress(OSError):
                            status = entry.stat()
                            used = max(status.st_mtime, self._used.get(entry.path, 0.0))
                            found.append((entry.path, status.st_size, used))
        return found
