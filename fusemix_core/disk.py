"""Files written whole or not at all, and what to do if the disk says no."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fusemix_core.errors import ArtefactError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open can't be deleted anyway
    fcntl = None

TEMPORARY = ".tmp"

_DENIED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)
"""What another place for the file would mend."""


@dataclass(frozen=True)
class Advice:
    """What to do when the disk is `full`, when it may not be written (`denied`), and else."""

    full: str
    denied: str
    other: str


@contextlib.contextmanager
def explained(what: str, advice: Advice) -> Iterator[None]:
    """Turn a failed write into an `ArtefactError` that says `what` can't be written, and what the
    user can do. Heeds what safetensors raises too, which is not an OSError."""
    try:
        yield
    except OSError as error:
        raise _explanation(what, error.errno, error.strerror or str(error), advice) from error
    except Exception as error:
        told = re.search(r"os error (\d+)", str(error))
        if type(error).__name__ != "SafetensorError" or not told:
            raise
        number = int(told[1])
        raise _explanation(what, number, os.strerror(number), advice) from error


def _explanation(what: str, number: int | None, reason: str, advice: Advice) -> ArtefactError:
    hint = advice.other
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = advice.full
    elif number in _DENIED:
        hint = advice.denied
    return ArtefactError(f"{what} can't be written: {reason}.", hint)


def write_atomically(path: Path, parts: Iterable) -> None:
    """Write bytes-like parts to a file that is whole, or as it was; see `written_whole`."""
    with written_whole(path) as file:
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary in the same folder to write to; at the end flush it, rename it, and flush
    the folder: a file at `path` is whole, and two writers never conflict."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def give_usual_mode(path: Path) -> None:
    """Give a file the mode that files get here: `open`'s, by the umask and the folder's defaults.

    For a file that a library wrote by way of a private temporary one, which only its owner may
    read.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(probe, "wb") as file:
            mode = os.fstat(file.fileno()).st_mode
        path.chmod(stat.S_IMODE(mode))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def is_stray(path: Path) -> bool:
    """Whether a temporary file belongs to no living writer (a writer holds its lock)."""
    if fcntl is None:
        return True
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, if the file system has any: without, two processes may do one work."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each made durable in the one above."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush(folder.parent)


def flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to disk; Windows opens no folders,
    and needs it not."""
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
