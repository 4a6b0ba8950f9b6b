"""The parts of a flat index as its manifest names them: segments, and which of their rows are gone.

    <folder>/manifest.json      the parts, with a checksum
    <folder>/<digest>.vectors   segments (see `segments`)
    <folder>/<digest>.gone      rows of one segment that were removed, int64
    <folder>/verified.json      stamps of verified files

All files but the manifest and the stamps are immutable and named by the digest of their bytes. The
manifest is replaced by rename: that is when a write happens. Files that no manifest names
were left by a process that was killed; the next writer deletes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.disk import TEMPORARY, explained, is_stray, write_atomically
from fusemix_core.errors import ArtefactError
from fusemix_core.latents.shards import BadShardError
from fusemix_core.latents.stamps import Stamps, state_of
from fusemix_core.search.segments import ADVICE, SUFFIX, Segment, digest_of

GONE = ".gone"
MANIFEST = "manifest.json"
_FORMAT = "fusemix-flat-1"


@dataclass(frozen=True)
class Part:
    """A segment, by the digest that names it, and its removed rows: sorted int64, and the digest
    that names their file ("" for none)."""

    name: str
    segment: Segment
    gone: np.ndarray
    gone_name: str = ""

    @property
    def alive(self) -> np.ndarray:
        """bool `[n]`: the rows that are not removed."""
        alive = np.ones(len(self.segment), bool)
        alive[self.gone] = False
        return alive


class Parts:
    """The files of one index, read and written."""

    def __init__(self, folder: Path, dim: int, kept: int) -> None:
        self.folder, self.dim, self.kept = folder, dim, kept
        self.manifest = folder / MANIFEST
        self._stamps = Stamps(folder)

    def read(self, known: Sequence[Part]) -> tuple[list[Part], list[str]]:
        """(the sound parts that the manifest names; a sentence for each damaged one).

        Raises:
            FileNotFoundError: A file is gone, as after another process compacted the index.
            ArtefactError: The manifest is damaged, or of another index.
        """
        before = {(one.name, one.gone_name): one for one in known}
        segments = {one.name: one.segment for one in known}
        parts, faults = [], []
        for name, gone in self._named():
            try:
                part = before.get((name, gone))
                parts.append(part or self._part(name, gone, segments.get(name)))
            except BadShardError as error:
                faults.append(error.message)
        return parts, faults

    def write(self, parts: Sequence[Part]) -> None:
        """Make these the index: the moment at which a change happens."""
        facts = {
            "format": _FORMAT,
            "dim": self.dim,
            "kept": self.kept,
            "parts": [[one.name, one.gone_name] for one in parts],
        }
        with explained(f"The index {self.folder}", ADVICE):
            write_atomically(self.manifest, [signed(facts)])

    def without(self, part: Part, rows: np.ndarray) -> Part:
        """The part with further removed rows, whose file is written."""
        gone = np.union1d(part.gone, rows)
        data = np.ascontiguousarray(gone, "<i8").tobytes()
        name = hashlib.blake2b(data, digest_size=16).hexdigest()
        with explained(f"The index {self.folder}", ADVICE):
            write_atomically(self.folder / f"{name}{GONE}", [data])
        return Part(part.name, part.segment, gone, name)

    def faults(self) -> list[str]:
        """Read every file whole; a sentence for each that is missing or damaged."""
        try:
            named = self._named()
        except FileNotFoundError:
            return []
        except ArtefactError as error:
            return [error.message]
        faults = []
        for path in self._paths(named):
            with contextlib.suppress(OSError):
                if digest_of(path) == path.stem:
                    continue
            faults.append(f"{path} is missing, or does not match its checksum.")
        return faults

    def sound(self) -> list[Part]:
        """The parts whose files all match their checksums, each read whole."""
        with contextlib.suppress(FileNotFoundError, ArtefactError):
            parts = []
            for name, gone in self._named():
                with contextlib.suppress(OSError, BadShardError):
                    if all(digest_of(p) == p.stem for p in self._paths([(name, gone)])):
                        parts.append(self._part(name, gone, None))
            return parts
        return []

    def sweep(self, parts: Sequence[Part]) -> None:
        """Delete files that are in none of the parts, and what killed writers left."""
        kept = set(self._paths((one.name, one.gone_name) for one in parts))
        for path in self.folder.iterdir():
            ours = path.suffix in (SUFFIX, GONE) and path not in kept
            left = path.name.startswith(".") and path.suffix == TEMPORARY and is_stray(path)
            if ours or left:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _paths(self, named: Iterable[tuple[str, str]]) -> list[Path]:
        paths = []
        for name, gone in named:
            paths.append(self.folder / f"{name}{SUFFIX}")
            paths += [self.folder / f"{gone}{GONE}"] if gone else []
        return paths

    def _named(self) -> list[tuple[str, str]]:
        facts = read_signed(self.manifest)
        found = facts.get("format"), facts.get("dim"), facts.get("kept")
        if found != (_FORMAT, self.dim, self.kept):
            raise ArtefactError(
                f"{self.manifest} is of another index: {found[0]}, {found[1]} and {found[2]} "
                f"columns, not {_FORMAT}, {self.dim} and {self.kept}.",
                "Build the index again in a new folder.",
            )
        return [(str(name), str(gone)) for name, gone in facts["parts"]]

    def _part(self, name: str, gone_name: str, segment: Segment | None) -> Part:
        """Open a part; a file is read whole unless it was found right and is unchanged since."""
        if segment is None:
            path = self.folder / f"{name}{SUFFIX}"
            state = state_of(path)
            if self._stamps.checksum(path.name, state) != name:
                if digest_of(path) != name:
                    raise BadShardError(f"{path} does not match its checksum.")
                self._stamps.add({path.name: (state, name)})
            segment = Segment(path, self.dim, self.kept)
        gone = np.zeros(0, np.int64)
        if gone_name:
            path = self.folder / f"{gone_name}{GONE}"
            data = path.read_bytes()
            if hashlib.blake2b(data, digest_size=16).hexdigest() != gone_name:
                raise BadShardError(f"{path} does not match its checksum.")
            gone = np.frombuffer(data, "<i8")
        return Part(name, segment, gone, gone_name)


def signed(facts: Mapping[str, Any]) -> bytes:
    """Facts as JSON with a checksum of themselves."""
    body = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    digest = hashlib.blake2b(body.encode(), digest_size=16).hexdigest()
    return json.dumps({**facts, "checksum": digest}, indent=1, ensure_ascii=False).encode()


def read_signed(path: Path) -> dict[str, Any]:
    """The facts of a file that `signed` made. Raises `ArtefactError` if it is damaged, OSError if
    it can't be read."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError, RecursionError):
        facts = json.loads(data)
        if isinstance(facts, dict):
            facts.pop("checksum", None)
            if signed(facts) == data:
                return facts
    raise ArtefactError(
        f"{path} is damaged.", "Run `fusemix index update` on the index: it is made again."
    )
