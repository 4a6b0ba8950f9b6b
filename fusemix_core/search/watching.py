"""Waits for files to change, by looking at them every few seconds."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def changes(
    sources: Iterable[str | Path], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Yield each time files have changed and rested for one look, so that copies are complete.

    Args:
        sources: Folders, looked through with all that is below them, and single files.
        seconds: Between two looks.
        sleep: Waits so many seconds.
    """
    sources = list(sources)
    known = last = _digest(sources)
    while True:
        sleep(seconds)
        now = _digest(sources)
        if now == last and now != known:
            known = now
            yield
        last = now


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
