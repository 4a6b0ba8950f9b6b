"""Content keys of references, remembered between runs by path, size, times of change and inode."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from fusemix_core.data.references import (
    CellReference,
    FileReference,
    HeldReference,
    Reference,
    SliceReference,
)
from fusemix_core.digests import content_key
from fusemix_core.errors import DataError

_PIECE = 1 << 20
_CHUNK = 4096
_SETTLED = 2.0
"""Seconds. A file changed more recently may change again within one tick of its clock."""

Stamp = tuple[int, int, int, int]
"""Of a file: size, mtime and ctime in nanoseconds, inode. Two pictures may share the first two, as
`cp -p`, `rsync -t` and tar keep them, but a file can't be changed without a new ctime."""
_INODE = (1 << 63) - 1
"""SQLite's integers are signed."""
Progress = Callable[[int, int], None]


class HashMemory:
    """The keys of files already hashed, in one SQLite file that several processes may share.

    It is only a memory: if it can't be used, `warning` says why and nothing is remembered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warning = ""

    def _run(self, work: Callable[[sqlite3.Connection], object]) -> None:
        if self.warning:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, size INTEGER, "
                    "mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, key BLOB) WITHOUT ROWID"
                )
                work(connection)
        except (sqlite3.Error, OSError, ValueError) as error:
            self.warning = (
                f"The memory of hashes {self.path} can't be used ({error}): every file is hashed "
                "again. Delete it if it is damaged."
            )

    def recall(self, stamps: dict[str, Stamp]) -> dict[str, bytes]:
        """The keys known of these names, if their stamps are still the same."""
        found: dict[str, bytes] = {}
        names = list(stamps)

        def work(connection: sqlite3.Connection) -> None:
            for at in range(0, len(names), 500):
                some = names[at : at + 500]
                marks = ",".join("?" * len(some))
                chosen = "SELECT name, key, size, mtime_ns, ctime_ns, inode FROM keys WHERE name IN"
                query = f"{chosen} ({marks})"
                for name, key, *stamp in connection.execute(query, some):
                    same = stamps[name] == tuple(stamp)
                    if same and isinstance(key, bytes) and len(key) == 16:
                        found[name] = key

        if names:
            self._run(work)
        return found

    def remember(self, rows: Iterable[tuple[str, Stamp, bytes]]) -> None:
        """Keep (name, stamp, key) of settled files."""
        limit = time.time_ns() - int(_SETTLED * 1e9)
        keep = [(name, *stamp, key) for name, stamp, key in rows if max(stamp[1:3]) < limit]
        if keep:
            insert = "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)"
            self._run(lambda connection: connection.executemany(insert, keep))


def file_key(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """`content_key` of a file's bytes, or of `size` of them from `offset` on, read in pieces.

    Raises OSError if there are fewer.
    """
    digest = hashlib.blake2b(digest_size=16)
    left = sys.maxsize if size is None else size
    with open(path, "rb") as file:
        file.seek(offset)
        while piece := file.read(min(_PIECE, left)):
            digest.update(piece)
            left -= len(piece)
    if size is not None and left:
        raise OSError("it is cut short")
    return digest.digest()


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """uint64 `[n, 2]`: the keys of normalised texts."""
    digests = b"".join(content_key(text.encode()) for text in texts)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def reference_keys(
    references: Sequence[Reference], memory: HashMemory, progress: Progress | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """(uint64 `[n, 2]` keys of the references' bytes, reason by index of those that can't be read).

    `progress(done, total)` is called after every few thousand.
    """
    keys = np.zeros((len(references), 2), np.uint64)
    faults: dict[int, str] = {}
    stats: dict[str, Stamp | str] = {}
    workers = min(8, (os.cpu_count() or 1) + 2)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(references), _CHUNK):
            some = references[start : start + _CHUNK]
            for offset, result in enumerate(_chunk_keys(some, memory, stats, pool)):
                if isinstance(result, bytes):
                    keys[start + offset] = np.frombuffer(result, np.uint64)
                else:
                    faults[start + offset] = result
            if progress is not None:
                progress(start + len(some), len(references))
    return keys, faults


def _chunk_keys(
    references: Sequence[Reference],
    memory: HashMemory,
    stats: dict[str, Stamp | str],
    pool: ThreadPoolExecutor,
) -> list[bytes | str]:
    """For each reference its key, or the reason why there is none."""
    results: dict[int, bytes | str] = {}
    names: dict[int, str] = {}
    stamps: dict[str, Stamp] = {}
    for i, reference in enumerate(references):
        if isinstance(reference, HeldReference):
            results[i] = content_key(reference.data) if reference.data else f"{reference} is empty"
            continue
        name, path = reference.remembered_as()
        if path not in stats:
            stats[path] = _stat(path)
        stamp = stats[path]
        if isinstance(stamp, str):
            results[i] = stamp
        else:
            stamps[name], names[i] = stamp, name
    known = memory.recall(stamps)
    results |= {i: known[name] for i, name in names.items() if name in known}
    new = [i for i in names if i not in results]
    # Tables keep an open handle each, which threads may not share.
    threaded = [i for i in new if not isinstance(references[i], CellReference)]
    results |= zip(threaded, pool.map(lambda i: _key(references[i]), threaded), strict=True)
    results |= {i: _key(references[i]) for i in new if i not in results}
    found = ((names[i], results[i]) for i in new)
    memory.remember((name, stamps[name], key) for name, key in found if isinstance(key, bytes))
    return [results[i] for i in range(len(references))]


def _stat(path: str) -> Stamp | str:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return f"{path} does not exist"
    except (OSError, ValueError) as error:
        return f"{path} can't be read: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a file"
    return stamp_of(status)


def stamp_of(status: os.stat_result) -> Stamp:
    """By which a file is known to be unchanged."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _INODE


def _key(reference: Reference) -> bytes | str:
    try:
        if isinstance(reference, FileReference):
            if not os.path.getsize(reference.path):
                return f"{reference} is empty"
            return file_key(reference.path)
        if isinstance(reference, SliceReference) and reference.size:
            return file_key(reference.path, reference.offset, reference.size)
        data = reference.read()
    except (OSError, ValueError, DataError) as error:
        return f"{reference} can't be read: {getattr(error, 'strerror', None) or error}"
    return content_key(data) if data else f"{reference} is empty"
