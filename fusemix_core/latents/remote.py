"""A latent store in an object store: `<url>/latents/<fingerprint>/<view>/<shard>.safetensors`.

The objects are the shards of a local store, byte for byte. Each is put whole under the hash of its
keys, so a writer that is killed leaves nothing half done, and two writers never conflict. Shards
that are read lie in a local cache (see `fetching`); the index of a view is made there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.config import StoreDtype
from fusemix_core.disk import TEMPORARY, is_stray
from fusemix_core.errors import ConfigError, short
from fusemix_core.home import home as default_home
from fusemix_core.latents import upkeep
from fusemix_core.latents.bucket import Bucket, Object
from fusemix_core.latents.caching import ShardCache
from fusemix_core.latents.fetching import (
    HEADS,
    PENDING,
    RemoteShard,
    RemoteView,
)
from fusemix_core.latents.index import Index
from fusemix_core.latents.shards import SET_ASIDE, SUFFIX, Shard, write_shard
from fusemix_core.latents.stamps import Stamps
from fusemix_core.latents.store import LatentStore

VARIABLE = "FUSEMIX_STORE"
CACHE_VARIABLE = "FUSEMIX_STORE_CACHE_GB"
_LATENTS = "latents"
_MARK = f"{_LATENTS}/format.json"
_READERS = 8


def store_at(url: str | None = None, home: Path | None = None) -> LatentStore:
    """The latent store at an address such as `s3://bucket/prefix`, by default that of
    `$FUSEMIX_STORE`, else the one in `home`, which is `$FUSEMIX_HOME` by default.

    Raises:
        ConfigError: If it isn't the address of an object store.
        MissingDependencyError: If the package for object stores is not installed.
    """
    url = url or os.environ.get(VARIABLE)
    return RemoteStore(url, home) if url else LatentStore(home)


class RemoteStore(LatentStore):
    """A latent store in an object store, with a cache on this machine.

    Args:
        url: where, such as `s3://bucket/prefix`. Credentials come from the environment.
        home: the folder that holds the cache, by default `$FUSEMIX_HOME`, else ~/.cache/fusemix.
        cache_bytes: how much of the shards is kept here, by default `$FUSEMIX_STORE_CACHE_GB`, else
            four fifths of the free disk.

    Example:

        store = RemoteStore("s3://bucket/prefix")
        store.views()
    """

    def __init__(
        self, url: str, home: Path | None = None, *, cache_bytes: int | None = None
    ) -> None:
        self.bucket = Bucket(url)
        base = Path(home or default_home())
        name = hashlib.blake2b(self.bucket.url.encode(), digest_size=8).hexdigest()
        super().__init__(base / "objects" / name)
        self.home, self.place = base, self.bucket.url
        bound = _bound_of_environment() if cache_bytes is None else cache_bytes
        self.cache = ShardCache(self.folder, bound)
        self._views: dict[Path, RemoteView] = {}
        self._notes: list[str] = []
        self._bound = cache_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        opened = partial(RemoteStore, cache_bytes=self._bound)
        return opened, (self.bucket.url, self.home.resolve())

    # -- reading ---------------------------------------------------------------------------------

    def repair(
        self, fingerprint: str, view: str, keys: np.ndarray, store_dtype: StoreDtype
    ) -> list[str]:
        """As of any store; also puts what an earlier run wrote here and could not put."""
        remote = self._remote(self._view(fingerprint, view))
        for folder in (HEADS, PENDING):
            for path in (remote.folder / folder).glob(f".*{TEMPORARY}"):
                if is_stray(path):
                    path.unlink(missing_ok=True)
        for path in sorted((remote.folder / PENDING).glob(f"*{SUFFIX}")):
            self._put(remote, path)
        self._notes = []
        warnings = super().repair(fingerprint, view, keys, store_dtype)
        return warnings + self._notes

    # -- writing ---------------------------------------------------------------------------------

    def prepare(self, fingerprint: str, view: str) -> None:
        """Raise `ArtefactError` now if `write` could store nothing, here or there."""
        super().prepare(fingerprint, view)
        self.bucket.put(_MARK, b'{"format": "fusemix-latents-1"}\n')

    def _write(self, folder: Path, *shard: Any) -> Shard:
        written = write_shard(folder / PENDING, *shard)
        self._put(self._remote(folder), written.path)
        written.path = folder / written.path.name
        return written

    def _put(self, remote: RemoteView, path: Path) -> None:
        """Put a pending shard, unless another writer has, and move it into the cache."""
        name = path.name
        known = self._known.get(remote.folder / name)
        damaged = known is not None and known[1] is None
        with contextlib.suppress(FileNotFoundError):  # another process has put and moved it
            if damaged or not self.bucket.has(remote.key(name)):
                self.bucket.put(remote.key(name), path)
            self._known.pop(remote.folder / name, None)
            self.cache.make_room(path.stat().st_size, keep=())
            os.replace(path, remote.folder / name)

    # -- upkeep ----------------------------------------------------------------------------------

    def views(self) -> list[upkeep.CachedView]:
        """The contents of the object store, one row per encoder and view."""
        rows = []
        for folder, objects in self._all():
            modified = {o.name: o.modified.timestamp() for o in objects}
            shards, _ = self._listed(folder, self._index(folder))
            found = [(s, modified.get(p.name, 0.0)) for p, s in shards.items()]
            if found:
                rows.append(upkeep.cached_view(folder, found))
        return rows

    def verify(self) -> list[upkeep.BadShard]:
        """Read every shard whole, there and not in the cache; those that are damaged. Changes
        nothing there."""
        bad = []
        self._known.clear()
        with ThreadPoolExecutor(_READERS, "fusemix-verify") as pool:
            for folder, _ in self._all():
                remote = self._remote(folder)
                shards, broken = self._listed(folder, self._index(folder))
                bad += [upkeep.BadShard(remote.url(b.name), b.reason) for b in broken]
                bad += [fault for fault in pool.map(remote.verify, shards.values()) if fault]
        return bad

    def prune(
        self, *, fingerprint: str | None = None, older_than: float | None = None, all: bool = False
    ) -> upkeep.Pruned:
        """Delete from the object store, and what is here of it; options as of any store."""
        selective = fingerprint is not None or older_than is not None
        latest = datetime.now(UTC).timestamp()
        latest -= (older_than or 0) * 86400
        damaged = set() if all or selective else {bad.path for bad in self.verify()}
        files = freed = 0
        for folder, objects in self._all():
            remote, fits = self._remote(folder), folder.parent.name.startswith(fingerprint or "")
            for one in objects:
                useless = one.name.endswith(SET_ASIDE) or remote.url(one.name) in damaged
                chosen = selective and fits and one.modified.timestamp() <= latest
                if all or useless or chosen:
                    self.bucket.delete(remote.key(one.name))
                    remote.forget([one.name])
                    files, freed = files + 1, freed + one.size
        self._known.clear()
        self._indexes.clear()
        return upkeep.Pruned(files, freed)

    # -- inside ----------------------------------------------------------------------------------

    def _remote(self, folder: Path) -> RemoteView:
        """The view whose part of the cache is `folder`."""
        if folder not in self._views:
            prefix = f"{_LATENTS}/{folder.parent.name}/{folder.name}"
            self._views[folder] = RemoteView(self.bucket, prefix, folder, self.cache)
        return self._views[folder]

    def _all(self) -> Iterator[tuple[Path, list[Object]]]:
        """Each view's folder in the cache, and its objects, those that were set aside too."""
        found: dict[Path, list[Object]] = {}
        for one in self.bucket.list(_LATENTS):
            parts = one.name.split("/")
            if len(parts) == 3 and parts[2].endswith((SUFFIX, SUFFIX + SET_ASIDE)):
                with contextlib.suppress(ValueError):  # not a name of ours
                    named = Object(parts[2], one.size, one.tag, one.modified)
                    found.setdefault(self._view(*parts[:2]), []).append(named)
        yield from sorted(found.items())

    def _listed(
        self, folder: Path, index: Index
    ) -> tuple[dict[Path, Shard], list[upkeep.BadShard]]:
        remote, shards, bad = self._remote(folder), {}, []
        before = remote.known_names()  # what another process adds from now on is not gone
        objects = {folder / o.name: o for o in remote.objects()}
        new = []
        for path, one in objects.items():
            known = self._known.get(path)
            if known is None or known[0] != (one.size, one.tag):
                new.append(one)
        remote.forget(before - {path.name for path in objects})
        for name, found in remote.heads(new).items():
            one = objects[folder / name]
            sound = found if isinstance(found, RemoteShard) else None
            # A bad one that credentials don't let us set aside stays, and must be known as bad.
            self._known[folder / name] = (one.size, one.tag), sound
            if not isinstance(found, RemoteShard):
                bad.append(found)
        for path, one in objects.items():
            known = self._known.get(path)
            if known is not None and known[0] == (one.size, one.tag) and known[1] is not None:
                shards[path] = known[1]
        return shards, bad

    def _verified(self, shards: list[Shard], stamps: Stamps) -> list[upkeep.BadShard]:
        if not shards:
            return []
        if self.cache.fits(shards):
            return self._remote(shards[0].path.parent).bring(shards)
        whole, free = sum(s.size for s in shards) / 1e9, self.cache.free / 1e9
        self._notes.append(
            f"{whole:,.2f} GB of latents don't fit into the {free:,.2f} GB of cache left: "
            f"they are fetched again whenever they are read. Give it more room: {CACHE_VARIABLE}."
        )
        return []  # each is verified when it arrives

    def _set_aside(self, path: Path) -> None:
        remote = self._remote(path.parent)
        remote.set_aside(path.name)
        if known := self._known.get(path):
            self._known[path] = known[0], None


def _bound_of_environment() -> int | None:
    """Bytes of the cache that the user set, or None."""
    given = os.environ.get(CACHE_VARIABLE)
    if not given:
        return None
    try:
        bound = float(given)
    except ValueError:
        bound = 0.0
    if not 0 < bound < float("inf"):
        raise ConfigError(
            f"{CACHE_VARIABLE} is '{short(given)}'.", "It is a number of gigabytes, such as 200."
        )
    return int(bound * 1e9)
