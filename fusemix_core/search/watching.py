"""Waits for files to change: reported by the system if `watchfiles` is installed, else looked for
every few seconds."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def changes(
    sources: Iterable[str | Path], seconds: float, sleep: Callable[[float], None] | None = None
) -> Iterator[None]:
    """Yield each time files have changed and then rested for so long, so that copies are complete.

    Args:
        sources: Folders, looked through with all that is below them, and single files.
        seconds: How long they have to rest, and between two looks.
        sleep: Waits so many seconds. Given: look, even if the system would say what changes.
    """
    sources = list(sources)
    known = _digest(sources)
    noticed = sleep is None and importlib.util.find_spec("watchfiles") is not None
    while True:
        look = _noticed if noticed and all(map(os.path.isdir, sources)) else _looked
        for now in look(sources, seconds, known, sleep or time.sleep):
            if now == known:  # not what was there has changed, but how to watch it
                break
            known = now
            yield


def _looked(
    sources: list[str | Path], seconds: float, known: bytes, sleep: Callable[[float], None]
) -> Iterator[bytes]:
    """The digest of files that have changed and rested for one look."""
    last = known
    while True:
        sleep(seconds)
        now = _digest(sources)
        if now == last and now != known:
            known = now
            yield now
        last = now


def _noticed(
    sources: list[str | Path], seconds: float, known: bytes, sleep: Callable[[float], None]
) -> Iterator[bytes]:
    """The same of folders, in which nothing is looked at until the system reports a change; the
    digest `known` if a folder was replaced, as reports are of the former one."""
    from watchfiles import watch

    places, first = _places(sources), True
    changed = False
    how = {"rust_timeout": max(1, round(1000 * seconds)), "yield_on_timeout": True}
    for found in watch(*sources, watch_filter=None, **how):
        # What happened before the first report is not reported.
        changed = changed or bool(found) or (first and _digest(sources) != known)
        first = False
        if found or not changed:
            continue
        changed, now = False, _digest(sources)
        if now != known:
            known = now
            yield now
        if _places(sources) != places:
            yield known


def _places(sources: list[str | Path]) -> list[int]:
    """The inode of each folder; 0 if it is gone."""
    return [os.stat(one).st_ino if os.path.isdir(one) else 0 for one in sources]


def _digest(sources: Iterable[str | Path]) -> bytes:
    """Of the names, sizes and times of all files."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        for path in _files(source):
            with suppress(OSError):
                status = os.stat(path)
                facts = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0"
                digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.digest()


def _files(source: str | Path) -> Iterator[str]:
    if not os.path.isdir(source):
        yield str(source)
        return
    for folder, below, files in os.walk(source):
        below.sort()
        for name in sorted(files):
            yield os.path.join(folder, name)
