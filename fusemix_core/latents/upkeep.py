"""What `fusemix cache` does to the latent store: list, verify, prune."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fusemix_core.disk import TEMPORARY, is_stray
from fusemix_core.latents.index import FOLDER, segment_paths
from fusemix_core.latents.segments import Segment
from fusemix_core.latents.shards import (
    SET_ASIDE,
    SUFFIX,
    BadShardError,
    Shard,
    check_layout,
    read_header,
    read_shard,
    verify_shard,
)
from fusemix_core.latents.stamps import NAME, STAMPED, Stamps
from fusemix_core.launch import launched

_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class CachedView:
    """One view of one encoder in the store. `modified` is in seconds since the epoch.

    `items` counts rows; `dtype` is float16, float32 or mixed.
    """

    encoder: str
    fingerprint: str
    view: str
    items: int
    bytes: int
    dtype: str
    modified: float


@dataclass(frozen=True)
class BadShard:
    """A shard that can't be used, and why. `path` is an address where it lies in an object store
    only."""

    path: Path | str
    reason: str

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class Pruned:
    """The result of a prune."""

    files: int
    bytes: int


def views(folder: Path) -> Iterator[Path]:
    """The `<fingerprint>/<view>` folders of a store, sorted."""
    yield from sorted(p for p in folder.glob("*/*") if p.is_dir())


def cached_views(folder: Path) -> list[CachedView]:
    """The contents of the store; damaged shards are left out."""
    rows = []
    for view in views(folder):
        shards = []
        for path in sorted(view.glob(f"*{SUFFIX}")):
            with contextlib.suppress(BadShardError, OSError):
                shards.append((read_header(path), path.stat().st_mtime))
        if shards:
            rows.append(cached_view(view, shards))
    return rows


def cached_view(view: Path, shards: Sequence[tuple[Shard, float]]) -> CachedView:
    """The row of a view, whose shards come with when they were written."""
    dtypes = {s.dtype for s, _ in shards}
    newest, modified = max(shards, key=lambda row: row[1])
    return CachedView(
        encoder=newest.metadata.get("encoder", ""),
        fingerprint=view.parent.name,
        view=view.name,
        items=sum(len(s) for s, _ in shards),
        bytes=sum(s.size for s, _ in shards),
        dtype=dtypes.pop() if len(dtypes) == 1 else "mixed",
        modified=modified,
    )


def verified(shards: Iterable[Shard], stamps: Stamps) -> list[BadShard]:
    """Verify shards and give the bad ones. Those that were verified before, here or in any process,
    and have not changed since are not read again; nor are any if an earlier process of those that
    torchrun started on this machine does that."""
    new = [s for s in shards if not s.verified]
    if launched().local_rank:
        for shard in new:
            shard.verified = True
        return []
    unknown = [s for s in new if not _stamped(s, stamps)]
    bad = bad_shards(unknown)
    stamp(unknown, stamps)
    return bad


def stamp(shards: Iterable[Shard], stamps: Stamps) -> None:
    """Remember which of these are verified, if reading them takes a time worth it."""
    sound = [(shard, shard.state) for shard in shards if shard.verified and shard.state]
    if sum(shard.size for shard, _ in sound) >= STAMPED:
        stamps.add({s.path.name: (state, s.metadata["checksum"]) for s, state in sound})


def _stamped(shard: Shard, stamps: Stamps) -> bool:
    """Whether a stamp says that the shard is sound; its header must still agree."""
    checksum = stamps.checksum(shard.path.name, shard.state) if shard.state else None
    if checksum is None:
        return False
    with contextlib.suppress(BadShardError, OSError):
        check_layout(shard)
        shard.verified = shard.metadata.get("checksum") == checksum
    return shard.verified


def bad_files(folder: Path) -> list[BadShard]:
    """The damaged shards and segments of a store, all of which are read whole."""
    found = list(views(folder))
    segments = [path for view in found for path in segment_paths(view / FOLDER)]
    return bad_shards(p for view in found for p in sorted(view.glob(f"*{SUFFIX}"))) + [
        bad for bad in map(_bad_segment, segments) if bad
    ]


def _bad_segment(path: Path) -> BadShard | None:
    try:
        Segment(path).verify()
    except FileNotFoundError:  # merged with others meanwhile
        return None
    except OSError as error:
        return unreadable(path, error)
    except BadShardError as error:
        return BadShard(path, error.message)
    return None


def bad_shards(shards: Iterable[Path | Shard]) -> list[BadShard]:
    """Read shards whole, several at once, and give those whose header or checksum is wrong."""

    def fault(item: Path | Shard) -> BadShard | None:
        path = item.path if isinstance(item, Shard) else item
        try:
            verify_shard(item if isinstance(item, Shard) else read_shard(item))
        except FileNotFoundError:
            return BadShard(path, f"{path} has been removed.")
        except OSError as error:
            return unreadable(path, error)
        except BadShardError as error:
            return BadShard(path, error.message)
        return None

    with ThreadPoolExecutor(_READERS) as pool:
        return [f for f in pool.map(fault, shards) if f]


def unreadable(path: Path, error: OSError) -> BadShard:
    """The shard that the system won't read."""
    return BadShard(path, f"{path} can't be read: {error.strerror or error}.")


def strays(view: Path) -> list[Path]:
    """Temporary files in a view's folder that a killed writer left."""
    found = [*view.glob(f".*{TEMPORARY}"), *(view / FOLDER).glob(f".*{TEMPORARY}")]
    return [p for p in sorted(found) if is_stray(p)]


def prune(folder: Path, fingerprint: str | None, older_than: float | None, all: bool) -> Pruned:
    """See `LatentStore.prune`."""
    selective = fingerprint is not None or older_than is not None
    newest_kept = time.time() - older_than * 86400 if older_than is not None else float("inf")
    files = freed = 0
    for view in list(views(folder)):
        doomed = strays(view) + sorted(view.glob(f"*{SET_ASIDE}"))
        shards = sorted(view.glob(f"*{SUFFIX}"))
        if all or (selective and view.parent.name.startswith(fingerprint or "")):
            doomed += [p for p in shards if all or _modified(p) <= newest_kept]
        elif not selective:
            doomed += [Path(bad.path) for bad in bad_shards(shards)]
            doomed += [p for p in segment_paths(view / FOLDER) if _bad_segment(p)]
        if set(shards) <= set(doomed):  # nothing is left to index
            doomed += [*segment_paths(view / FOLDER), view / FOLDER / NAME]
        for path in dict.fromkeys(doomed):
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                path.unlink()
                files, freed = files + 1, freed + size
        for empty in (view / FOLDER, view, view.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()
    return Pruned(files, freed)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
