"""The index of one view: where the keys of most of its shards are, in a few sorted segments.

    <view>/index/<digest>.idx      segments (see `segments`)
    <view>/index/verified.json     stamps of verified shards (see `stamps`)

Everything in it follows from the shards: it may be deleted, and is made again. Small views have
none. Shards that are in no segment have their keys in memory, until they have enough for another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusemix_core.disk import explained, locked
from fusemix_core.errors import ArtefactError
from fusemix_core.latents.segments import (
    SEGMENT,
    Segment,
    is_there,
    merged,
    segment_of,
    tells_its_keys,
)
from fusemix_core.latents.shards import ADVICE, BadShardError, Shard
from fusemix_core.latents.stamps import STAMPED, Stamps, state_of

FOLDER = "index"
SEGMENT_ITEMS = 1 << 18
"""A segment is written once shards with so many items are in none."""
_AT_ONCE = 1 << 22
"""Items whose keys are sorted in memory; more become several segments."""
FAN_IN = 8
"""So many segments of like size become one."""


class Index:
    """The index of a view's folder, as far as it is on disk."""

    def __init__(self, view: Path) -> None:
        self.view, self.folder = view, view / FOLDER
        self.stamps = Stamps(self.folder)
        self.segments: list[Segment] = []
        self._notes: list[str] = []
        self._refused = False
        self._nameless: set[Path] = set()

    def take_notes(self) -> list[str]:
        """Notes for the user on the index, a sentence each, once."""
        notes, self._notes = self._notes, []
        return notes

    def load(self) -> None:
        """Map the segments that are there, each verified once; damaged ones are deleted."""
        known = {one.path: one for one in self.segments}
        self.segments = []
        for path in segment_paths(self.folder):
            with contextlib.suppress(OSError):
                try:
                    self.segments.append(known.get(path) or self._verified(path))
                except BadShardError as error:
                    self._notes.append(f"{error.message} It is made again from the shards.")
                    path.unlink()

    def covered(self, present: Mapping[str, int]) -> dict[str, Shard]:
        """File name → shard, of those `present` (name → size) that a segment has."""
        shards = (s for one in self.segments for s in one.shards)
        return {s.path.name: s for s in shards if is_there(s, present)}

    def numbers(self, shards: Sequence[Shard]) -> dict[Segment, np.ndarray]:
        """For `lookup.find`: segment → for each of its shards its number in `shards`, or -1."""
        number = {(s.path.name, s.size): i for i, s in enumerate(shards)}
        return {
            one: np.array([number.get((s.path.name, s.size), -1) for s in one.shards], np.int32)
            for one in self.segments
        }

    def due(self, loose: Sequence[Shard], present: Mapping[str, int]) -> bool:
        """Whether `update` would change anything. loose: the shards that are in no segment."""
        enough = sum(len(s) for s in loose if s.path not in self._nameless) >= SEGMENT_ITEMS
        return not self._refused and (enough or any(self._wasted(present)))

    def update(self, loose: Sequence[Shard], present: Mapping[str, int]) -> None:
        """Write segments of the loose shards, and merge those that are many, or hold much that is
        gone. One process at a time; the others wait, and find it done."""
        try:
            with explained(f"The index {self.folder}", ADVICE), locked(self.view):
                self.load()
                covered = self.covered(present)
                loose = [s for s in loose if s.path.name not in covered]
                if self.due(loose, present):
                    self._add(loose)
                    self._drop(self._wasted(present), present)
                    self._merge(present)
        except ArtefactError as error:
            self._refused = True
            self._notes.append(f"{error.message} The keys of its items are held in memory.")

    def _add(self, loose: Sequence[Shard]) -> None:
        group, held = [], 0
        for shard in loose:
            with contextlib.suppress(BadShardError, FileNotFoundError):
                if not tells_its_keys(shard):
                    self._nameless.add(shard.path)
                    continue
                group.append(shard)
                held += len(shard)
            if held >= _AT_ONCE:
                self.segments.append(segment_of(self.folder, group))
                group, held = [], 0
        if group:
            self.segments.append(segment_of(self.folder, group))

    def _merge(self, present: Mapping[str, int]) -> None:
        while True:
            levels: dict[int, list[Segment]] = {}
            for one in self.segments:
                levels.setdefault(_level(len(one)), []).append(one)
            many = next((some for some in levels.values() if len(some) >= FAN_IN), None)
            if many is None:
                return
            self._drop(many, present)

    def _drop(self, segments: Sequence[Segment], present: Mapping[str, int]) -> None:
        """Replace segments by one without what is gone."""
        segments = list(segments)
        if not segments:
            return
        self.segments = [one for one in self.segments if one not in segments]
        elsewhere = self.covered(present)
        made = merged(
            self.folder, segments, {n: size for n, size in present.items() if n not in elsewhere}
        )
        if made is not None:
            self.segments.append(made)
        for old in segments:
            old.close()
            if made is None or old.path != made.path:
                old.path.unlink(missing_ok=True)

    def _wasted(self, present: Mapping[str, int]) -> list[Segment]:
        """The segments of which more than half is gone, or in a larger one."""
        seen: set[str] = set()
        wasted = []
        for one in sorted(self.segments, key=len, reverse=True):
            live = [s for s in one.shards if is_there(s, present) and s.path.name not in seen]
            seen |= {s.path.name for s in live}
            if 2 * sum(map(len, live)) < len(one):
                wasted.append(one)
        return wasted

    def _verified(self, path: Path) -> Segment:
        state = state_of(path)
        segment = Segment(path)
        if self.stamps.checksum(path.name, state) == segment.digest:
            segment.verified = True
            return segment
        segment.verify()
        if segment.size >= STAMPED:
            self.stamps.add({path.name: (state, segment.digest)})
        return segment


def segment_paths(folder: Path) -> list[Path]:
    """The segments in an index's folder, sorted."""
    return sorted(folder.glob(f"*{SEGMENT}"))


def _level(items: int) -> int:
    """Segments of one level have sizes within a factor of `FAN_IN`."""
    level = 0
    while items >= SEGMENT_ITEMS * FAN_IN:
        items, level = items // FAN_IN, level + 1
    return level
