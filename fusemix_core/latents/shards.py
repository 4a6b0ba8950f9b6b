"""One shard: an immutable safetensors file with `keys` uint64 [n, 2] and `latents` [n, ...].

Of a view whose items differ in length it contains `lengths` int64 [n] too, and `latents` are those
of all items one after another, [sum of lengths, d].

Written and read here byte by byte, so that the same items give the same bytes (the safetensors
library promises no order of metadata) and the checksum covers the header too. Any safetensors
reader opens the files; the format is that of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from fusemix_core.disk import TEMPORARY, Advice, explained, make_folder, write_atomically
from fusemix_core.errors import ArtefactError
from fusemix_core.latents.stamps import State

SUFFIX = ".safetensors"
SET_ASIDE = ".bad"
DTYPES = {"float16": "F16", "float32": "F32"}
_CODES = {"uint64": "U64", "int64": "I64", **DTYPES}
_NUMPY = {"U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4"}
MAX_HEADER = 1 << 24
_CHUNK = 1 << 22
NO_CHECKSUM = "0" * 64
"""The header's text in the checksum's place while the checksum is taken."""
_KEPT = "then run again: finished shards are kept."
ADVICE = Advice(
    "Free some space (`fusemix cache prune` helps) or set FUSEMIX_HOME to a larger disk, " + _KEPT,
    "Set FUSEMIX_HOME to a folder that you may write to.",
    "Check the disk, " + _KEPT,
)
"""Where latents can't be written."""

T = TypeVar("T")
S = TypeVar("S", bound="Shard")


class BadShardError(ArtefactError):
    """A shard is damaged: its latents must be made again."""


class Source(Protocol):
    """Where shards are fetched from before they are read; `fetching.RemoteView` is one.

    Attributes:
        window: bytes of shards to read at a time.
    """

    @property
    def window(self) -> int: ...

    def claimed(self, shards: Sequence[Shard], user: object) -> bool:
        """Whether all these can be here at once; if so, they stay as long as their `user` does."""

    def need(self, shards: Sequence[Shard]) -> None:
        """Have shards here and verified. Raises `ArtefactError` if one can't be had."""

    def ahead(self, groups: Iterable[T], shards_of: Callable[[T], list[Shard]]) -> Iterator[T]:
        """The groups, each once its shards are here; those of the next are fetched meanwhile."""


class Shard:
    """A complete shard file: what it contains, and where.

    Attributes:
        shape: of one latent.
        dtype: float16 or float32.
        offset: where the latents begin in the file, which has `size` bytes.
        ragged: items differ in length (`lengths`).
        verified: its checksum has been found right.
        state: that of the file when it was listed (`stamps.state_of`); None if it was not.
        source: if the file is fetched from before it is read; None if it lies here.
    """

    source: Source | None = None

    def __init__(
        self,
        path: Path,
        keys: np.ndarray | None,
        shape: tuple[int, ...],
        dtype: str,
        offset: int,
        size: int,
        metadata: Mapping[str, str],
        lengths: np.ndarray | None = None,
        verified: bool = False,
        *,
        count: int = 0,
        ragged: bool = False,
    ) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self.offset, self.size, self.metadata, self.verified = offset, size, metadata, verified
        self.count = count if keys is None else len(keys)
        self.ragged = ragged or lengths is not None
        self.state: State | None = None
        self._keys, self._lengths = keys, lengths

    def __len__(self) -> int:
        return self.count

    @property
    def head(self) -> int:
        """Bytes before the first tensor."""
        return self.offset - _before_latents(len(self), self.ragged)

    @property
    def keys(self) -> np.ndarray:
        """uint64 `[n, 2]`; read from the file if they are not held."""
        if self._keys is not None:
            return self._keys
        return self._read(self.head, "<u8", 2 * len(self)).reshape(-1, 2)

    @property
    def lengths(self) -> np.ndarray | None:
        """int64 `[n]`, how many latents of `shape` each item has; None if each has one."""
        if not self.ragged or self._lengths is not None:
            return self._lengths
        lengths = self._read(self.head + 16 * len(self), "<i8", len(self))
        width = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        if not 1 <= lengths.min() <= lengths.max() <= lengths.sum() == self.latents_bytes // width:
            raise BadShardError(f"{self.path} has lengths that don't fit its latents.")
        return lengths

    @property
    def latents_bytes(self) -> int:
        """Bytes that the latents take in the file."""
        return self.size - self.offset

    def hold(self) -> None:
        """Read keys and lengths, and keep them in memory."""
        self._lengths, self._keys = self.lengths, self.keys

    def let_go(self) -> None:
        """Hold keys and lengths no more."""
        self._lengths = self._keys = None

    def _read(self, offset: int, dtype: str, count: int) -> np.ndarray:
        found = np.fromfile(self.path, dtype, count, offset=offset)
        if len(found) != count:
            raise BadShardError(f"{self.path} is truncated.")
        return found


def shard_id(keys: np.ndarray, dtype: str) -> str:
    """The hex name that the same items in the same order and dtype always get."""
    digest = hashlib.blake2b(dtype.encode(), digest_size=16)
    digest.update(np.ascontiguousarray(keys, "<u8").data)
    return digest.hexdigest()


def write_shard(
    folder: Path,
    keys: np.ndarray,
    latents: np.ndarray,
    metadata: Mapping[str, str],
    lengths: np.ndarray | None = None,
) -> Shard:
    """Write latents (float16 or float32, finite) of `keys` [n, 2], so that presence means complete.

    With `lengths` [n], each 1 or more, they are [sum of lengths, d]. Raises `ArtefactError` when
    the disk is full or the folder can't be written.
    """
    dtype = latents.dtype.name
    tensors = {"keys": np.ascontiguousarray(keys, "<u8")}
    if lengths is not None:
        tensors["lengths"] = lengths = np.ascontiguousarray(lengths, "<i8")
    tensors["latents"] = np.ascontiguousarray(latents, _NUMPY[DTYPES[dtype]])
    parts = [tensor.reshape(-1).view(np.uint8).data for tensor in tensors.values()]
    metadata = {**metadata, "checksum": NO_CHECKSUM}
    digest = hashlib.blake2b(_header(tensors, metadata), digest_size=32)
    for part in parts:
        digest.update(part)
    metadata["checksum"] = digest.hexdigest()
    header = _header(tensors, metadata)
    path = folder / f"{shard_id(keys, dtype)}{SUFFIX}"
    with explained(f"The latent store {folder}", ADVICE):
        make_folder(folder)
        try:
            write_atomically(path, [header, *parts])
        except FileNotFoundError:  # another process took our file for a stray as we made it
            write_atomically(path, [header, *parts])
    size = len(header) + sum(p.nbytes for p in parts)
    offset = size - parts[-1].nbytes
    keys, shape = tensors["keys"], latents.shape[1:]
    return Shard(path, keys, shape, dtype, offset, size, metadata, lengths, verified=True)


def make_writable(folder: Path) -> None:
    """Create a folder for shards; raises `ArtefactError` if none could be written there."""
    probe = folder / f".probe.{os.getpid()}{TEMPORARY}"
    with explained(f"The latent store {folder}", ADVICE):
        make_folder(folder)
        probe.touch()
        probe.unlink(missing_ok=True)


def _header(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    layout = {name: (_CODES[t.dtype.name], t.shape, t.nbytes) for name, t in tensors.items()}
    return safetensors_header(layout, metadata)


def safetensors_header(
    layout: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> bytes:
    """Length and JSON header of tensors (dtype's code, shape, bytes), padded so that they are
    aligned to 8 bytes."""
    facts: dict = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name, (code, shape, size) in layout.items():
        end = start + size
        facts[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(facts, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _before_latents(n: int, ragged: bool) -> int:
    """Bytes of the keys, and of the lengths if there are some, of n items."""
    return (24 if ragged else 16) * n


def read_shard(path: Path) -> Shard:
    """The shard at `path` with its keys; its size, header, keys and lengths are checked but not its
    checksum.

    Raises `BadShardError` if it is truncated or malformed, OSError if it can't be read.
    """
    shard = read_header(path)
    shard.hold()
    return shard


def read_header(path: Path) -> Shard:
    """As `read_shard`, but keys and lengths are left in the file."""
    with open(path, "rb") as file:
        return header_of(path, file, os.fstat(file.fileno()).st_size, Shard)


def header_of(path: Path, file: BinaryIO, size: int, kind: type[S]) -> S:
    """The shard of `size` bytes whose header is read from `file`; `kind` is the class of it.

    Raises `BadShardError` if the header is malformed or does not fit the size.
    """
    head, tensors = parse_header(path, file, size)
    try:
        metadata, keys, latents = (tensors[k] for k in ("__metadata__", "keys", "latents"))
        n, shape = keys["shape"][0], tuple(latents["shape"])
        dtype = {code: name for name, code in DTYPES.items()}[latents["dtype"]]
        ragged = "lengths" in tensors
        start = _before_latents(n, ragged)
        end = start + math.prod(shape) * np.dtype(dtype).itemsize
        fits = (
            all(type(width) is int and width > 0 for width in (n, *shape))
            and keys == {"dtype": "U64", "shape": [n, 2], "data_offsets": [0, 16 * n]}
            and latents["data_offsets"] == [start, end]
            and size == head + end
            and (len(shape) == 2 if ragged else len(shape) > 1 and shape[0] == n)
            and all(isinstance(v, str) for v in metadata.values())
        )
        if fits and ragged:
            expected = {"dtype": "I64", "shape": [n], "data_offsets": [16 * n, 24 * n]}
            fits = tensors["lengths"] == expected
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadShardError(f"{path} has a malformed header ({error!r}).") from error
    if not fits:
        raise BadShardError(f"{path} is truncated or its header is damaged ({size} bytes).")
    offset = head + start
    return kind(path, None, shape[1:], dtype, offset, size, metadata, count=n, ragged=ragged)


def parse_header(path: Path, file: BinaryIO, size: int) -> tuple[int, dict]:
    """Where the tensors begin, and the parsed header."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(MAX_HEADER, size - 8):
        raise BadShardError(f"{path} is not a shard or is truncated ({size} bytes).")
    try:
        return 8 + length, json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise BadShardError(f"{path} has a damaged header.") from error


def verify_shard(shard: Shard) -> None:
    """Read the whole file and compare its checksum; raises `BadShardError` on any difference."""
    check_layout(shard)
    stated = shard.metadata.get("checksum", "")
    digest = hashlib.blake2b(digest_size=32)
    with open(shard.path, "rb") as file:
        head = file.read(shard.head)
        digest.update(head.replace(stated.encode(), NO_CHECKSUM.encode(), 1))
        while piece := file.read(_CHUNK):
            digest.update(piece)
    if digest.hexdigest() != stated:
        raise BadShardError(f"{shard.path} does not match its checksum.")
    shard.verified = True


def check_layout(shard: Shard) -> None:
    """Raise `BadShardError` if the file's header is not what is known of it (from an index), and
    take the metadata from it."""
    found = read_header(shard.path)
    if facts_of(found) != facts_of(shard):
        raise BadShardError(f"{shard.path} is not what its index says.")
    shard.metadata = found.metadata


def check_same(shard: Shard) -> None:
    """Raise `BadShardError` if the file now has another checksum in its header than before."""
    before = shard.metadata.get("checksum")
    check_layout(shard)
    if before not in (None, shard.metadata.get("checksum")):
        raise BadShardError(f"{shard.path} has changed since it was verified.")


def facts_of(shard: Shard) -> tuple:
    """The facts of a shard that are needed to read its latents."""
    return len(shard), tuple(shard.shape), shard.dtype, shard.offset, shard.size, shard.ragged


def set_aside(path: Path) -> None:
    """Take a bad shard out of use. In a folder that can't be written it stays, still unused."""
    with contextlib.suppress(OSError):
        os.replace(path, path.with_name(path.name + SET_ASIDE))
