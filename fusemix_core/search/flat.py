"""`flat`: an index that compares a query with every vector, and so finds exactly the best."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fusemix_core.disk import explained, locked, make_folder
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.stamps import State, state_of
from fusemix_core.search.lookup import Lookup
from fusemix_core.search.parts import Part, Parts
from fusemix_core.search.scan import nearest
from fusemix_core.search.segments import ADVICE, SUFFIX, Segment, check_rows, write_segment
from fusemix_core.vectors import Index

_MOST_SMALL = 16
"""Segments of less than half the usual size, before they are merged."""
_TRIES = 5


class FlatIndex(Index):
    """Every vector in float32, and one byte per number for the scan. See `parts` for its files.

    Args:
        folder, dim, kept: As for `Index`.
        segment: Vectors per file.

    One that is damaged opens; searching it is an `ArtefactError`, and `repair` mends it.

    Example:
        index = FlatIndex("vectors", dim=384, kept=0)
        index.add(keys, rows)
        found, scores = index.search(queries, 10)
    """

    def __init__(self, folder: str | Path, dim: int, kept: int, *, segment: int = 65_536) -> None:
        super().__init__(folder, dim, kept)
        if segment < 1:
            raise ConfigError(f"index flat: segment={segment} must be 1 or more.")
        self.options = {"segment": segment}
        self.segment = segment
        self._files = Parts(self.folder, dim, kept)
        self._state: State | None = None
        self._set([], [])
        self.refresh()

    def _set(self, parts: Sequence[Part], faults: list[str]) -> None:
        self._parts, self._faults = list(parts), faults
        keys = [np.zeros((0, 2), np.uint64), *(one.segment.keys for one in parts)]
        self._living: np.ndarray | None = None  # bool over all rows; None: none is removed
        if any(len(one.gone) for one in parts):
            self._living = np.concatenate([one.alive for one in parts])
        found = np.concatenate(keys)
        self._lookup = Lookup(found if self._living is None else found[self._living])
        # Where the living rows are among all; None: where they are.
        self._places = None if self._living is None else np.flatnonzero(self._living)

    # -- reading ---------------------------------------------------------------------------------

    @property
    def keys(self) -> np.ndarray:
        """uint64 `[n, 2]`, in the order in which they were added."""
        return self._lookup.keys

    def refresh(self) -> None:
        """Take in the writes of other processes."""
        for _ in range(_TRIES):
            try:
                state = state_of(self._files.manifest)
            except (FileNotFoundError, NotADirectoryError):
                self._state = None
                self._set([], [])
                return
            if state == self._state:
                return
            try:
                self._set(*self._files.read(self._parts))
            except FileNotFoundError:  # compacted by another process meanwhile, or lost
                self._set([], ["Files are missing."])
                continue
            except ArtefactError as error:
                self._set([], [error.message])
            self._state = state
            return

    def search(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Index.search`. Of equal products, the first added comes first."""
        self._check_sound()
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim + self.kept:
            raise ValueError(f"queries {queries.shape} are not [m, {self.dim + self.kept}]")
        usable = len(self) if allowed is None else int(np.count_nonzero(allowed))
        count = min(count, usable)
        if not count or not len(queries):
            shape = (len(queries), count)
            return np.zeros((*shape, 2), np.uint64), np.zeros(shape, np.float32)
        whole = self._living if self._living is not None else allowed
        if self._living is not None and self._places is not None and allowed is not None:
            whole = np.zeros(len(self._living), bool)
            whole[self._places[allowed]] = True
        places, scores = self._nearest(queries, count, whole)
        if self._places is not None:
            places = np.searchsorted(self._places, places)
        return self.keys[places], scores

    def _nearest(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best vectors of each query, `count` of those allowed (bool over all rows; None: all):
        their places among all rows, int64 `[m, count]`, and inner products, float32."""
        segments = [one.segment for one in self._parts]
        return nearest(segments, self._read, queries, count, allowed, self.dim)

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """See `Index.rows`."""
        self._check_sound()
        found = self._lookup.find(keys)
        if (found < 0).any():
            raise KeyError("the index has no vector of some of these keys")
        return self._read(found if self._places is None else self._places[found])

    def check(self) -> list[str]:
        """Read every file whole; a sentence for each fault. Changes nothing."""
        return self._files.faults()

    # -- writing ---------------------------------------------------------------------------------

    def add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """See `Index.add`."""
        keys, rows = np.asarray(keys, np.uint64), np.asarray(rows, np.float32)
        check_rows(keys, rows, self.dim, self.kept)
        with self._writing():
            new = self._lookup.find(keys) < 0
            if new.any():
                self._publish([*self._parts, *self._written(keys[new], rows[new])])
                self._tidy()

    def remove(self, keys: np.ndarray) -> int:
        """See `Index.remove`."""
        with self._writing():
            found = self._lookup.find(keys)
            found = np.unique(found[found >= 0])
            places = found if self._places is None else self._places[found]
            if len(places):
                parts, start = [], 0
                for one in self._parts:
                    end = start + len(one.segment)
                    here = places[(places >= start) & (places < end)] - start
                    parts.append(self._files.without(one, here) if len(here) else one)
                    start = end
                self._publish(parts)
                self._tidy()
            return len(places)

    def compact(self) -> None:
        """Write the segments anew, full and without removed vectors."""
        with self._writing():
            self._compact()

    def repair(self) -> list[str]:
        """Leave out the parts that can't be read; all of them if the manifest can't be."""
        faults = self.check()
        if faults:
            with locked(self.folder):
                self._set([], [])
                self._publish(self._files.sound())
        return faults

    # -- inside ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The folder, locked, as other processes left it."""
        with explained(f"The index {self.folder}", ADVICE):
            make_folder(self.folder)
        with locked(self.folder):
            self.refresh()
            self._check_sound()
            self._files.sweep(self._parts)
            yield

    def _written(self, keys: np.ndarray, rows: np.ndarray) -> list[Part]:
        """New parts of vectors, which no manifest names yet."""
        parts = []
        for start in range(0, len(keys), self.segment):
            some = slice(start, start + self.segment)
            name = write_segment(self.folder, keys[some], rows[some], self.dim)
            segment = Segment(self.folder / f"{name}{SUFFIX}", self.dim, self.kept)
            parts.append(Part(name, segment, np.zeros(0, np.int64)))
        return parts

    def _publish(self, parts: Sequence[Part]) -> None:
        """Make these parts the index."""
        self._files.write(parts)
        self._set(parts, [])
        self._state = state_of(self._files.manifest)
        self._files.sweep(parts)

    def _tidy(self) -> None:
        """Compact if many segments are small, or half of the vectors are gone."""
        small = sum(2 * len(one.segment) < self.segment for one in self._parts)
        total = sum(len(one.segment) for one in self._parts)
        if small > _MOST_SMALL or 2 * len(self) < total:
            self._compact()

    def _compact(self) -> None:
        parts: list[Part] = []
        keys, rows = np.zeros((0, 2), np.uint64), np.zeros((0, self.dim + self.kept), np.float32)
        for one in self._parts:
            if len(one.segment) == self.segment and not len(one.gone):
                parts.append(one)
                continue
            alive = one.alive
            keys = np.concatenate([keys, one.segment.keys[alive]])
            rows = np.concatenate([rows, one.segment.all_rows()[alive]])
            full = len(keys) // self.segment * self.segment
            parts += self._written(keys[:full], rows[:full])
            keys, rows = keys[full:], rows[full:]
        self._publish([*parts, *self._written(keys, rows)])

    def _read(self, places: np.ndarray) -> np.ndarray:
        """float32 `[n, dim + kept]`: the vectors at these places among all."""
        out = np.empty((len(places), self.dim + self.kept), np.float32)
        start = 0
        for one in self._parts:
            here = np.flatnonzero((places >= start) & (places < start + len(one.segment)))
            if len(here):
                out[here] = one.segment.rows(places[here] - start)
            start += len(one.segment)
        return out

    def _check_sound(self) -> None:
        if self._faults:
            raise self._damaged(self._faults)

    def _damaged(self, faults: Sequence[str]) -> ArtefactError:
        return ArtefactError(
            f"The index {self.folder} is damaged. {' '.join(faults)}",
            "Run `fusemix index update` on the index: what is damaged is made again.",
        )
