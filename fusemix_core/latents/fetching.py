"""Shards of an object store: whole ones in a local cache of bounded size, and the heads of all.

    <cache>/latents/<fingerprint>/<view>/<shard>.safetensors           fetched, verified on arrival
    <cache>/latents/<fingerprint>/<view>/heads/<shard>.safetensors     header, keys and lengths
    <cache>/latents/<fingerprint>/<view>/pending/<shard>.safetensors   written here, not yet put

All but `pending` may be deleted: it is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from fusemix_core.disk import Advice, explained, make_folder, write_atomically
from fusemix_core.errors import ArtefactError
from fusemix_core.latents import upkeep
from fusemix_core.latents.bucket import AGAIN, PIECE, Bucket, Object
from fusemix_core.latents.caching import ShardCache
from fusemix_core.latents.index import FOLDER
from fusemix_core.latents.shards import (
    MAX_HEADER,
    NO_CHECKSUM,
    SET_ASIDE,
    SUFFIX,
    BadShardError,
    Shard,
    facts_of,
    header_of,
)
from fusemix_core.latents.stamps import Stamps, state_of

HEADS = "heads"
PENDING = "pending"
_AT_ONCE = 8
"""Requests at a time: 64 MB of pieces at most."""
_HEAD = 256 << 10
"""Bytes that are read of a shard to learn its keys; of shards of more than 16,000 items more."""
_LEAST = 8
"""Bytes that say how long the header is."""
_TRIES = 2
"""How often a shard is fetched that arrives with a wrong checksum."""
_ADVICE = Advice(
    "Free some space, or let the cache take less (FUSEMIX_STORE_CACHE_GB), " + AGAIN,
    "Set FUSEMIX_HOME to a folder that you may write to.",
    "Check the disk, " + AGAIN,
)

T = TypeVar("T")


class RemoteShard(Shard):
    """A shard of an object store: `path` is where it lies once it is fetched. Its keys and lengths
    are read from its head, which lies here already."""

    view: RemoteView

    def _read(self, offset: int, dtype: str, count: int) -> np.ndarray:
        found = np.fromfile(self.view.head_path(self.path.name), dtype, count, offset=offset)
        if len(found) != count:
            raise BadShardError(f"The head of {self.path.name} is truncated.")
        return found


class RemoteView:
    """One view of one encoder in an object store, and its part of the cache in `folder`."""

    def __init__(self, bucket: Bucket, prefix: str, folder: Path, cache: ShardCache) -> None:
        self.bucket, self.prefix, self.folder, self.cache = bucket, prefix, folder, cache
        self.stamps = Stamps(folder / FOLDER)
        self._lock = Lock()

    @property
    def window(self) -> int:
        """Bytes to read at a time: those of the next window are fetched beside them."""
        return self.cache.free // 4

    def claimed(self, shards: Sequence[Shard], user: object) -> bool:
        """Whether all these can be here at once; if so, they stay as long as their `user` does."""
        return self.cache.claimed(shards, user)

    # -- names -----------------------------------------------------------------------------------

    def key(self, name: str) -> str:
        """The object's name."""
        return f"{self.prefix}/{name}"

    def url(self, name: str) -> str:
        """The object's name as messages have it."""
        return f"{self.bucket.url}/{self.key(name)}"

    def head_path(self, name: str) -> Path:
        """Where the beginning of a shard lies."""
        return self.folder / HEADS / name

    # -- heads -----------------------------------------------------------------------------------

    def objects(self) -> list[Object]:
        """The shards of the view, by name."""
        found = (o for o in self.bucket.list(self.prefix) if "/" not in o.name)
        return sorted((o for o in found if o.name.endswith(SUFFIX)), key=lambda o: o.name)

    def heads(self, objects: Sequence[Object]) -> dict[str, RemoteShard | upkeep.BadShard]:
        """The shard of each object by its name; what is wrong of a damaged one. Objects that are
        gone are left out."""
        with ThreadPoolExecutor(_AT_ONCE, "fusemix-heads") as pool:
            found = dict(zip((o.name for o in objects), pool.map(self._head, objects), strict=True))
        return {name: shard for name, shard in found.items() if shard is not None}

    def forget(self, names: Iterable[str]) -> None:
        """Delete what is here of shards."""
        for name in names:
            for path in (self.folder / name, self.head_path(name)):
                with contextlib.suppress(OSError):
                    path.unlink()

    def known_names(self) -> set[str]:
        """The shards whose heads are here."""
        with contextlib.suppress(OSError):
            return {n for n in os.listdir(self.folder / HEADS) if n.endswith(SUFFIX)}
        return set()

    def _head(self, found: Object) -> RemoteShard | upkeep.BadShard | None:
        path, kept = self.folder / found.name, self.head_path(found.name)
        with contextlib.suppress(OSError, BadShardError):
            return self._of(path, kept.read_bytes(), found.size)
        try:
            start = self._local(found) or self._beginning(found)
            shard = self._of(path, start, found.size, whole=False)
            if shard.offset > len(start):
                start += self._read(found, len(start), shard.offset)
            with explained(f"The cache {self.folder}", _ADVICE):
                make_folder(kept.parent)
                write_atomically(kept, [start[: shard.offset]])
            return self._of(path, start, found.size)
        except FileNotFoundError:
            return None
        except BadShardError as error:
            return upkeep.BadShard(path, self._named(error.message, found.name))

    def _of(self, path: Path, start: bytes, size: int, whole: bool = True) -> RemoteShard:
        # A header that goes on beyond `start` is refused as no JSON.
        shard = header_of(path, io.BytesIO(start), size, RemoteShard)
        if whole and len(start) < shard.offset:
            raise BadShardError(f"{path} is truncated.")
        shard.source = shard.view = self
        return shard

    def _local(self, found: Object) -> bytes:
        """The beginning of a shard that is here whole already, or b""."""
        with contextlib.suppress(OSError, BadShardError), open(self.folder / found.name, "rb") as f:
            if os.fstat(f.fileno()).st_size == found.size:
                start = f.read(_HEAD)
                shard = self._of(self.folder / found.name, start, found.size, whole=False)
                return start + f.read(max(0, shard.offset - len(start)))
        return b""

    def _beginning(self, found: Object) -> bytes:
        """So much of an object that its whole header is in it."""
        if found.size < _LEAST:
            raise BadShardError(f"{self.folder / found.name} is truncated.")
        start = self._read(found, 0, min(_HEAD, found.size))
        length = 8 + int.from_bytes(start[:8], "little")
        if len(start) < length <= min(MAX_HEADER, found.size):
            start += self._read(found, len(start), length)
        return start

    def _read(self, found: Object, start: int, end: int) -> bytes:
        data = self.bucket.read(self.key(found.name), start, end)
        if len(data) < end - start:
            raise BadShardError(f"{self.folder / found.name} is truncated.")
        return data

    # -- whole shards ----------------------------------------------------------------------------

    def bring(self, shards: Sequence[Shard], beside: Sequence[Shard] = ()) -> list[upkeep.BadShard]:
        """Have shards here and verified, `beside` others that are to stay; gives the bad ones.

        Raises `ArtefactError` if the object store can't be reached or the disk is full.
        """
        self.cache.touch(shards)
        if all(self._is_here(s) and s.verified for s in shards):
            return []  # without waiting for what is fetched meanwhile
        with self._lock:
            here = [s for s in shards if self._is_here(s)]
            new = [s for s in here if not s.verified]
            damaged = {bad.path for bad in upkeep.verified(here, self.stamps)}
            for shard in new:
                if shard.path not in damaged:
                    self._check_kept(shard)
            present = {id(s) for s in here if s.path not in damaged}
            absent = [s for s in shards if id(s) not in present]
            if not absent:
                return []
            self.cache.make_room(sum(s.size for s in absent), keep=[*shards, *beside])
            with ThreadPoolExecutor(_AT_ONCE, "fusemix-fetch") as pool:
                bad = [one for one in pool.map(self._fetch, absent) if one]
            upkeep.stamp(absent, self.stamps)
            return bad

    def need(self, shards: Sequence[Shard], beside: Sequence[Shard] = ()) -> None:
        """`bring`, where a bad shard is an `ArtefactError`; it is set aside."""
        if bad := self.bring(shards, beside):
            for one in bad:
                self.set_aside(one.name)
            raise ArtefactError(
                bad[0].reason, "Run the same command again: missing items are encoded again."
            )

    def ahead(self, groups: Iterable[T], shards_of: Callable[[T], list[Shard]]) -> Iterator[T]:
        """The groups, each once its shards are here; those of the next are fetched meanwhile."""
        with ThreadPoolExecutor(1, "fusemix-ahead") as pool:
            before, beside = None, []
            for group in groups:
                shards = shards_of(group)
                coming = group, pool.submit(self.need, shards, beside)
                beside = shards
                if before is not None:
                    before[1].result()
                    yield before[0]
                before = coming
            if before is not None:
                before[1].result()
                yield before[0]

    def set_aside(self, name: str) -> bool:
        """Take a bad shard out of use for all; False if it can't be, as credentials forbid it."""
        self.forget([name])
        try:
            self.bucket.rename(self.key(name), self.key(name + SET_ASIDE))
        except FileNotFoundError:  # another process has
            return True
        except ArtefactError:
            return False
        return True

    def verify(self, shard: Shard) -> upkeep.BadShard | None:
        """Read a shard whole if it is, and keep nothing."""
        try:
            for _ in self._checked(shard):
                pass
        except FileNotFoundError:
            return None
        except BadShardError as error:
            return upkeep.BadShard(self.url(shard.path.name), error.message)
        return None

    def _is_here(self, shard: Shard) -> bool:
        try:
            state = state_of(shard.path)
        except OSError:
            return False
        if state != shard.state:
            shard.state, shard.verified = state, False
        return state[1] == shard.size

    def _fetch(self, shard: Shard) -> upkeep.BadShard | None:
        name, fault = shard.path.name, ""
        for _ in range(_TRIES):
            try:
                with explained(f"The cache {self.folder}", _ADVICE):
                    make_folder(self.folder)
                    write_atomically(shard.path, self._checked(shard))
                    shard.state, shard.verified = state_of(shard.path), True
                return None
            except BadShardError as error:
                fault = error.message
            except ArtefactError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    return upkeep.BadShard(shard.path, f"{self.url(name)} has been removed.")
                raise
        return upkeep.BadShard(shard.path, fault)

    def _checked(self, shard: Shard) -> Iterator[bytes]:
        """The bytes of a shard as they arrive. Raises `BadShardError` after the last if they don't
        match their checksum, `ArtefactError` if they are sound but not what the head says."""
        name = shard.path.name
        start, digest, found = b"", None, None
        for begin in range(0, shard.size, PIECE):
            end = min(begin + PIECE, shard.size)
            piece = self.bucket.read(self.key(name), begin, end)
            if len(piece) < end - begin:
                raise BadShardError(f"{self.url(name)} is truncated.")
            yield piece
            if digest is not None:
                digest.update(piece)
            elif len(start := start + piece) >= min(shard.offset, shard.size):
                found = self._header(shard, start)
                digest = _begun(found, start)
        stated = "" if found is None else found.metadata.get("checksum", "")
        if found is None or digest is None or digest.hexdigest() != stated:
            raise BadShardError(f"{self.url(name)} does not match its checksum.")
        self._check_head(shard, found, start)
        shard.metadata = found.metadata

    def _header(self, shard: Shard, start: bytes) -> Shard:
        try:
            return header_of(shard.path, io.BytesIO(start), shard.size, Shard)
        except BadShardError as error:
            raise BadShardError(self._named(error.message, shard.path.name)) from error

    def _check_kept(self, shard: Shard) -> None:
        """`_check_head` of a shard that was here already."""
        with open(shard.path, "rb") as file:
            start = file.read(shard.offset)
        self._check_head(shard, self._header(shard, start), start)

    def _check_head(self, shard: Shard, found: Shard, start: bytes) -> None:
        """Raise `ArtefactError` unless keys and lengths are those that are known."""
        name = shard.path.name
        known = b""
        with contextlib.suppress(OSError):
            known = self.head_path(name).read_bytes()
        ours, theirs = known[shard.head : shard.offset], start[found.head : found.offset]
        if facts_of(found) != facts_of(shard) or ours != theirs:
            self.forget([name])
            raise ArtefactError(
                f"{self.url(name)} is not what it contains by the list: it was replaced, or the "
                "cache is damaged.",
                "Run the same command again: it is fetched again.",
            )

    def _named(self, message: str, name: str) -> str:
        """A message with the object's name in place of its path here."""
        return message.replace(str(self.folder / name), self.url(name))


def _begun(shard: Shard, start: bytes) -> hashlib.blake2b:
    """The digest of a shard's first bytes, the header among them."""
    stated = shard.metadata.get("checksum", "")
    digest = hashlib.blake2b(digest_size=32)
    digest.update(start[: shard.head].replace(stated.encode(), NO_CHECKSUM.encode(), 1))
    digest.update(start[shard.head :])
    return digest
