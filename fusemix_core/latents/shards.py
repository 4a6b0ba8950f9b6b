"""One shard: an immutable safetensors file with `keys` uint64 [n, 2] and `latents` [n, ...].

Written and read here byte by byte, so that the same items give the same bytes (the safetensors
library promises no order of metadata) and the checksum covers the header too. Any safetensors
reader opens the files; the format is that of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusemix_core.errors import ArtefactError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open can't be deleted anyway
    fcntl = None

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"
SET_ASIDE = ".bad"
DTYPES = {"float16": "F16", "float32": "F32"}
_NUMPY = {"U64": "<u8", "F16": "<f2", "F32": "<f4"}
_MAX_HEADER = 1 << 24
_CHUNK = 1 << 22
_NO_CHECKSUM = "0" * 64


class BadShardError(ArtefactError):
    """A shard is damaged: its latents must be made again."""


@dataclass
class Shard:
    """A complete shard file. `offset` is where its latents begin, `shape` theirs without n.

    `verified` is set once its checksum has been found right.
    """

    path: Path
    keys: np.ndarray
    shape: tuple[int, ...]
    dtype: str
    offset: int
    size: int
    metadata: Mapping[str, str]
    verified: bool = False

    def __len__(self) -> int:
        return len(self.keys)


def shard_id(keys: np.ndarray, dtype: str) -> str:
    """The hex name that the same items in the same order and dtype always get."""
    digest = hashlib.blake2b(dtype.encode(), digest_size=16)
    digest.update(np.ascontiguousarray(keys, "<u8").data)
    return digest.hexdigest()


def write_shard(
    folder: Path, keys: np.ndarray, latents: np.ndarray, metadata: Mapping[str, str]
) -> Shard:
    """Write latents (float16 or float32, finite) of `keys` [n, 2], so that presence means complete.

    Raises `ArtefactError` when the disk is full or the folder can't be written.
    """
    dtype = latents.dtype.name
    keys = np.ascontiguousarray(keys, "<u8")
    latents = np.ascontiguousarray(latents, _NUMPY[DTYPES[dtype]])
    parts = [keys.reshape(-1).view(np.uint8).data, latents.reshape(-1).view(np.uint8).data]
    metadata = {**metadata, "checksum": _NO_CHECKSUM}
    digest = hashlib.blake2b(_header(keys, latents, metadata), digest_size=32)
    for part in parts:
        digest.update(part)
    metadata["checksum"] = digest.hexdigest()
    header = _header(keys, latents, metadata)
    path = folder / f"{shard_id(keys, dtype)}{SUFFIX}"
    with _explained(folder):
        _make_folder(folder)
        try:
            _write_atomically(path, [header, *parts])
        except FileNotFoundError:  # another process took our file for a stray as we made it
            _write_atomically(path, [header, *parts])
    size = len(header) + sum(p.nbytes for p in parts)
    offset = len(header) + keys.nbytes
    return Shard(path, keys, latents.shape[1:], dtype, offset, size, metadata, verified=True)


def make_writable(folder: Path) -> None:
    """Create a folder for shards; raises `ArtefactError` if none could be written there."""
    probe = folder / f".probe.{os.getpid()}{TEMPORARY}"
    with _explained(folder):
        _make_folder(folder)
        probe.touch()
        probe.unlink(missing_ok=True)


def _header(keys: np.ndarray, latents: np.ndarray, metadata: Mapping[str, str]) -> bytes:
    """Length and JSON header, padded so that the tensors are aligned to 8 bytes."""
    end = keys.nbytes + latents.nbytes
    tensors = {
        "__metadata__": dict(sorted(metadata.items())),
        "keys": {"dtype": "U64", "shape": keys.shape, "data_offsets": [0, keys.nbytes]},
        "latents": {
            "dtype": DTYPES[latents.dtype.name],
            "shape": latents.shape,
            "data_offsets": [keys.nbytes, end],
        },
    }
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_atomically(path: Path, parts: list) -> None:
    """Temporary in the same folder, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _fsync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, each made durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the system says about a failed write into what the user can do."""
    try:
        yield
    except OSError as error:
        message = f"Latents can't be written to {folder}: {error.strerror or error}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = (
                "Free some space (`fusemix cache prune` helps) or set FUSEMIX_HOME to a larger "
                "disk, then run again: finished shards are kept."
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            hint = "Set FUSEMIX_HOME to a folder that you may write to."
        else:
            hint = "Check the disk, then run again: finished shards are kept."
        raise ArtefactError(message, hint) from error


def read_shard(path: Path) -> Shard:
    """The shard at `path`, its size, header and keys checked but not its checksum.

    Raises `BadShardError` if it is truncated or malformed, OSError if it can't be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head, tensors = _read_header(path, file, size)
        try:
            metadata = tensors["__metadata__"]
            keys, latents = tensors["keys"], tensors["latents"]
            n, shape = keys["shape"][0], tuple(latents["shape"])
            dtype = {code: name for name, code in DTYPES.items()}[latents["dtype"]]
            ends = keys["data_offsets"][1], latents["data_offsets"][1]
            fits = (
                (keys["dtype"], keys["shape"], keys["data_offsets"][0]) == ("U64", [n, 2], 0)
                and ends[0] == latents["data_offsets"][0] == 16 * n
                and shape[0] == n
                and len(shape) > 1
                and all(type(width) is int and width > 0 for width in shape)
                and ends[1] - ends[0] == math.prod(shape) * np.dtype(dtype).itemsize
                and size == head + ends[1]
                and all(isinstance(v, str) for v in metadata.values())
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise BadShardError(f"{path} has a malformed header ({error!r}).") from error
        if not fits:
            raise BadShardError(f"{path} is truncated or its header is damaged ({size} bytes).")
        found = np.fromfile(file, "<u8", 2 * n).reshape(n, 2)
    return Shard(path, found, shape[1:], dtype, head + ends[0], size, metadata)


def _read_header(path: Path, file, size: int) -> tuple[int, dict]:
    """Where the tensors begin, and the parsed header."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(_MAX_HEADER, size - 8):
        raise BadShardError(f"{path} is no shard or is truncated ({size} bytes).")
    try:
        return 8 + length, json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise BadShardError(f"{path} has a damaged header.") from error


def verify_shard(shard: Shard) -> None:
    """Read the whole file and compare its checksum; raises `BadShardError` on any difference."""
    stated = shard.metadata.get("checksum", "")
    digest = hashlib.blake2b(digest_size=32)
    with open(shard.path, "rb") as file:
        head = file.read(shard.offset - 16 * len(shard))
        digest.update(head.replace(stated.encode(), _NO_CHECKSUM.encode(), 1))
        while piece := file.read(_CHUNK):
            digest.update(piece)
    if digest.hexdigest() != stated:
        raise BadShardError(f"{shard.path} does not match its checksum.")
    shard.verified = True


def set_aside(path: Path) -> None:
    """Take a bad shard out of use. In a folder that can't be written it stays, still unused."""
    with contextlib.suppress(OSError):
        os.replace(path, path.with_name(path.name + SET_ASIDE))


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
