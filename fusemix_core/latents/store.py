"""The latent store: `<home>/latents/<fingerprint>/<view>/<shard id>.safetensors`.

Keyed by content: any dataset finds the items that any other has had encoded. Shards are immutable
and appear by rename, so presence means complete and two writers never conflict. Large views have an
index beside their shards (see `index`). Only `open` imports torch: planning and upkeep do without.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.config import StoreDtype
from fusemix_core.errors import ArtefactError
from fusemix_core.home import home as default_home
from fusemix_core.latents import upkeep
from fusemix_core.latents.fingerprint import plain
from fusemix_core.latents.index import Index
from fusemix_core.latents.lookup import Places, find
from fusemix_core.latents.precision import to_float16
from fusemix_core.latents.shards import (
    SUFFIX,
    BadShardError,
    Shard,
    make_writable,
    read_header,
    set_aside,
    write_shard,
)
from fusemix_core.latents.stamps import Stamps, state_of
from fusemix_core.specs import EncoderSpec
from fusemix_core.versions import version

if TYPE_CHECKING:
    from fusemix_core.latents.tables import RaggedLatents, StoredLatents


class LatentStore:
    """Latents by encoder fingerprint, view and content key.

    `home` is the folder that holds `latents/`; by default `$FUSEMIX_HOME`, else ~/.cache/fusemix.
    `remote.store_at` gives one that lies in an object store.
    Keys are uint64 [n, 2]. A float16 request is served from float16 shards first, then from
    float32 ones; a float32 request from float32 shards only.

    Shards are verified before they are used: read whole, once, and again when they have changed
    (see `stamps`). Of several processes on a machine that torchrun started the first does it.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(home or default_home())
        self.folder = self.home / "latents"
        self.place = str(self.folder)
        self._known: dict[Path, tuple[tuple[int | str, ...], Shard | None]] = {}
        self._indexes: dict[Path, Index] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens it anew."""
        return type(self), (self.home.resolve(),)

    # -- reading ---------------------------------------------------------------------------------

    def missing(
        self, fingerprint: str, view: str, keys: np.ndarray, store_dtype: StoreDtype
    ) -> np.ndarray:
        """bool [n]: which items have no latent. Headers are checked here, checksums are not."""
        return self._find(fingerprint, view, keys, store_dtype)[0].missing

    def repair(
        self, fingerprint: str, view: str, keys: np.ndarray, store_dtype: StoreDtype
    ) -> list[str]:
        """Verify every shard that these items need, once a process, and set bad ones aside.

        Their items count as missing from then on. Also clears what killed writers left. Returns
        a sentence for each bad shard, and for each fault of the index.
        """
        folder = self._view(fingerprint, view)
        for path in upkeep.strays(folder):
            with contextlib.suppress(OSError):
                path.unlink()
        warnings = self._sound(fingerprint, view, keys, store_dtype)[1]
        return warnings + self._index(folder).take_notes()

    def open(
        self,
        fingerprint: str,
        view: str,
        keys: np.ndarray,
        store_dtype: StoreDtype,
        absent: Iterable[int] = (),
    ) -> StoredLatents | RaggedLatents:
        """The latents of `keys`, memory-mapped; those in `absent` need have none.

        Raises `ArtefactError` if any other item is missing or its shard is damaged.
        """
        from fusemix_core.latents.tables import RaggedLatents, StoredLatents

        places, faults = self._sound(fingerprint, view, keys, store_dtype)
        lacking = places.missing
        lacking[list(absent)] = False
        if lacking.any():
            raise ArtefactError(
                f"{int(lacking.sum())} of {len(keys)} latents of encoder {fingerprint} are not in "
                f"{self.place}. {' '.join(faults)}".rstrip(),
                "Run the same command again: missing items are encoded again.",
            )
        used = places.used()
        shapes = {_shape(s) for s in used}
        if len(shapes) != 1:
            raise ArtefactError(
                f"Latents of encoder {fingerprint} have the shapes {', '.join(sorted(shapes))}.",
                f"Remove them: fusemix cache prune --fingerprint {fingerprint}",
            )
        return RaggedLatents(places) if used[0].ragged else StoredLatents(places)

    def item_shape(self, fingerprint: str, view: str) -> tuple[int, ...] | None:
        """The shape of each item's latent, or None where none is stored or the lengths differ."""
        shards, _ = self._shards(self._view(fingerprint, view))
        return shards[0].shape if shards and not shards[0].ragged else None

    # -- writing ---------------------------------------------------------------------------------

    def prepare(self, fingerprint: str, view: str) -> None:
        """Raise `ArtefactError` now if `write` could store nothing."""
        make_writable(self._view(fingerprint, view))

    def write(
        self,
        fingerprint: str,
        view: str,
        keys: np.ndarray,
        latents: np.ndarray,
        lengths: np.ndarray | None = None,
        *,
        spec: EncoderSpec,
        store_dtype: StoreDtype,
    ) -> tuple[Shard, str]:
        """Store finite float32 latents [n, ...] as one shard; with `lengths` int64 [n], where
        items differ in length, [sum of lengths, d].

        Returns it and why it is float32 though float16 was asked for (see `to_float16`), or "".
        Each shard decides that by itself, so that a run that was killed and resumed leaves the
        same files. Raises `ArtefactError` when it can't be written.
        """
        fault = ""
        if store_dtype == "float16":
            rounded, fault = to_float16(latents)
            latents = latents if fault else rounded
        facts = {
            "encoder": spec.name,
            "format": "fusemix-latents-1",
            "fusemix": version(),
            "spec": json.dumps(plain(spec), sort_keys=True),
            "view": view,
        }
        return self._write(self._view(fingerprint, view), keys, latents, facts, lengths), fault

    # -- upkeep ----------------------------------------------------------------------------------

    def views(self) -> list[upkeep.CachedView]:
        """The contents of the store, one row per encoder and view."""
        return upkeep.cached_views(self.folder)

    def verify(self) -> list[upkeep.BadShard]:
        """Read every shard and segment whole, whatever was verified before; those that are damaged.
        Changes nothing."""
        return upkeep.bad_files(self.folder)

    def prune(
        self, *, fingerprint: str | None = None, older_than: float | None = None, all: bool = False
    ) -> upkeep.Pruned:
        """Delete from the store.

        Always what killed writers left and shards that were set aside. Without options also
        shards that fail verification. `all`: every shard. `fingerprint` (or its beginning) and
        `older_than` (days since written): the shards that fit both.
        """
        self._known.clear()
        self._indexes.clear()
        return upkeep.prune(self.folder, fingerprint, older_than, all)

    # -- inside ----------------------------------------------------------------------------------

    def _view(self, fingerprint: str, view: str) -> Path:
        for part in (fingerprint, view):
            if not re.fullmatch(r"\w[\w.-]*", part):
                raise ValueError(f"{part!r} can't name a folder of the latent store")
        return self.folder / fingerprint / view

    def _write(self, folder: Path, *shard: Any) -> Shard:
        return write_shard(folder, *shard)

    def _index(self, folder: Path) -> Index:
        return self._indexes.setdefault(folder, Index(folder))

    def _sound(
        self, fingerprint: str, view: str, keys: np.ndarray, store_dtype: StoreDtype
    ) -> tuple[Places, list[str]]:
        """Where the keys are, in verified shards only, and a sentence for each bad one."""
        warnings = []
        stamps = self._index(self._view(fingerprint, view)).stamps
        while True:
            places, bad = self._find(fingerprint, view, keys, store_dtype)
            bad = bad or self._verified(places.used(), stamps)
            if not bad:
                return places, warnings
            for shard in bad:
                self._set_aside(Path(shard.path))
                warnings.append(f"{shard.reason} Its items must be encoded again.")

    def _verified(self, shards: list[Shard], stamps: Stamps) -> list[upkeep.BadShard]:
        """Verify shards that are to be used; the bad ones."""
        return upkeep.verified(shards, stamps)

    def _set_aside(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            # In a folder that can't be written it stays, so it must be known as bad.
            self._known[path] = (state_of(path), None)
            set_aside(path)

    def _find(
        self, fingerprint: str, view: str, keys: np.ndarray, store_dtype: StoreDtype
    ) -> tuple[Places, list[upkeep.BadShard]]:
        folder = self._view(fingerprint, view)
        shards, bad = self._shards(folder)
        dtypes = ("float16", "float32") if store_dtype == "float16" else ("float32",)
        usable = [s for dtype in dtypes for s in shards if s.dtype == dtype]
        keys = np.asarray(keys, np.uint64).reshape(-1, 2)
        return find(usable, keys, self._index(folder).numbers(usable)), bad

    def _shards(self, folder: Path) -> tuple[list[Shard], list[upkeep.BadShard]]:
        """The readable shards of a folder by name, and the damaged. A file is read once."""
        index = self._index(folder)
        index.load()
        listed, bad = self._listed(folder, index)
        present = {p.name: s.size for p, s in listed.items()}
        covered = index.covered(present)
        loose = [s for s in listed.values() if s.path.name not in covered]
        if index.due(loose, present):
            index.update(loose, present)
            covered = index.covered(present)
        for shard in loose:
            try:
                if shard.path.name in covered:
                    shard.let_go()
                else:
                    shard.hold()
            except FileNotFoundError:  # pruned by another process
                del listed[shard.path]
            except BadShardError as error:
                del listed[shard.path]
                bad.append(upkeep.BadShard(shard.path, error.message))
            except OSError as error:
                del listed[shard.path]
                bad.append(upkeep.unreadable(shard.path, error))
        return list(listed.values()), bad

    def _listed(
        self, folder: Path, index: Index
    ) -> tuple[dict[Path, Shard], list[upkeep.BadShard]]:
        """The shards of a folder by their paths, as the index or their headers tell, and the
        damaged."""
        try:
            with os.scandir(folder) as entries:
                paths = sorted(Path(e.path) for e in entries if e.name.endswith(SUFFIX))
        except (FileNotFoundError, NotADirectoryError):
            return {}, []
        except OSError as error:
            raise ArtefactError(
                f"The latent store {folder} can't be read: {error.strerror or error}.",
                "Set FUSEMIX_HOME to a folder of your own.",
            ) from error
        told = {s.path: s for one in index.segments for s in one.shards}
        shards, bad = {}, []
        for path in paths:
            try:
                state = state_of(path)
                known = self._known.get(path)
                if known is None or known[0] != state:
                    shard = told.get(path)
                    if shard is None or shard.size != state[1]:
                        shard = read_header(path)
                    shard.state, shard.verified = state, False
                    known = self._known[path] = (state, shard)
                if known[1] is not None:
                    shards[path] = known[1]
            except FileNotFoundError:  # pruned by another process
                continue
            except BadShardError as error:
                bad.append(upkeep.BadShard(path, error.message))
            except OSError as error:
                bad.append(upkeep.unreadable(path, error))
        return shards, bad


def _shape(shard: Shard) -> str:
    """`[n, …]` of a shard's latents; what differs from item to item by a letter."""
    return f"[{', '.join(map(str, ('n', *(['T'] * shard.ragged), *shard.shape)))}]"
