"""`faiss`: an index for millions of items that looks only where the best are likely to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.errors import ConfigError
from fusemix_core.latents.stamps import State
from fusemix_core.search.derived import Derived, DerivedFiles
from fusemix_core.search.flat import FlatIndex
from fusemix_core.search.parts import Part
from fusemix_core.search.scan import nearest

_STALE = 2.0
"""By how much the rows grow before lists are chosen anew."""
_GONE = 0.3
"""The share of listed rows that are removed before lists are chosen anew."""
_BESIDE = 0.02
"""The share of rows in no list, which each query is compared with, before they are added."""
_EACH = 4
_MORE = 32
"""Candidates to compare exactly: so many for each that is asked for, and so many more."""
_LOOKED = 20
"""Rows that the lists of a query contain at least for each that is asked for."""


class FaissIndex(FlatIndex):
    """A flat index and, from `least` rows on, lists of similar rows: a query looks into some lists.

    The lists are those of faiss (IVF with a byte per number). The rows found there are compared
    exactly, so scores are exact, and a result can only be missing. Rows
    that are in no list yet are all compared. Needs `fusemix[faiss]`.

    Args:
        folder, dim, kept: As for `Index`.
        segment: Vectors per file.
        least: Rows from which on there are lists; with fewer the index is exact.
        lists: How many. 0: four times the root of the number of rows.
        probes: Lists that a query looks into. 0: as many as find 97% of the best ten in a trial,
            when the lists are made.

    Example:
        index = FaissIndex("vectors", dim=384, kept=0)
        index.add(keys, rows)
        index.settle()
        found, scores = index.search(queries, 10)
    """

    def __init__(
        self,
        folder: str | Path,
        dim: int,
        kept: int,
        *,
        segment: int = 65_536,
        least: int = 500_000,
        lists: int = 0,
        probes: int = 0,
    ) -> None:
        if min(least, lists, probes) < 0:
            raise ConfigError(
                f"index faiss: least={least}, lists={lists} and probes={probes} must be 0 or more."
            )
        self.least, self.lists, self.probes = least, lists, probes
        self._lists = DerivedFiles(Path(folder), dim + kept)
        self._lists_state: State | None = None
        self._derived: Derived | None = None
        super().__init__(folder, dim, kept, segment=segment)
        self.options = {"segment": segment, "least": least, "lists": lists, "probes": probes}

    # -- reading ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in the writes of other processes."""
        super().refresh()
        state = self._lists.state()
        if state != self._lists_state:
            self._derived, self._lists_state = self._lists.read(), state
            self._match()

    def check(self) -> list[str]:
        """Read every file whole; a sentence for each fault. Changes nothing."""
        return [*super().check(), *self._lists.check()]

    def recall(self) -> float | None:
        """The share of the best ten that were found in a trial, when the lists were made; None if
        there are none, and the index is exact."""
        return None if self._derived is None else self._derived.recall

    def _set(self, parts: Sequence[Part], faults: list[str]) -> None:
        super()._set(parts, faults)
        self._match()

    def _match(self) -> None:
        """Find the rows of the lists among all, and those that are in no list."""
        starts, total = {}, 0
        for one in self._parts:
            starts[one.name] = total
            total += len(one.segment)
        covers = self._derived.covers if self._derived else ()
        listed = [
            np.arange(rows) + starts[name] if name in starts else np.full(rows, -1)
            for name, rows in covers
        ]
        # The place among all rows of each row of the lists, -1 if it is gone.
        self._places_of = np.concatenate([np.zeros(0, np.int64), *listed])
        same = np.array_equal(self._places_of, np.arange(len(self._places_of)))
        self._same_places = same  # which spares a look-up of each
        names = {name for name, _ in covers}
        self._beside = [one for one in self._parts if one.name not in names]
        places = [np.arange(len(one.segment)) + starts[one.name] for one in self._beside]
        self._places_beside = np.concatenate([np.zeros(0, np.int64), *places])

    def _nearest(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._derived is None or not (self._places_of >= 0).any():
            return super()._nearest(queries, count, allowed)
        listed = self._in_lists(self._derived, queries, count, allowed)
        beside = self._out_of_lists(queries, count, allowed)
        places = np.zeros((len(queries), count), np.int64)
        scores = np.zeros((len(queries), count), np.float32)
        for i, query in enumerate(queries):
            maybe = np.concatenate([listed[i], beside[i]])
            if len(maybe) < count:  # too few are allowed in these lists
                found = super()._nearest(queries[i : i + 1], count, allowed)
                places[i], scores[i] = found[0][0], found[1][0]
                continue
            exact = self._read(maybe) @ query
            best = np.lexsort((maybe, -exact))[:count]
            places[i], scores[i] = maybe[best], exact[best]
        return places, scores

    def _in_lists(
        self, derived: Derived, queries: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> list[np.ndarray]:
        """int64: for each query the places of the best candidates in its lists."""
        import faiss

        fits = self._fitting(allowed)
        usable = len(self._places_of) if fits is None else int(np.count_nonzero(fits))
        if not usable:
            return [np.zeros(0, np.int64)] * len(queries)
        index = derived.index
        wide = np.zeros((len(queries), index.d), np.float32)
        wide[:, : queries.shape[1]] = queries
        probes = (self.probes or derived.probes) * len(self._places_of) / usable
        probes = max(probes, _LOOKED * count * index.nlist / usable)
        how: dict[str, Any] = {"nprobe": min(index.nlist, math.ceil(probes))}
        if fits is not None:
            bits = np.packbits(fits, bitorder="little")
            how["sel"] = faiss.IDSelectorBitmap(bits)
        wanted = min(usable, _EACH * count + _MORE)
        _, ids = index.search(wide, wanted, params=faiss.SearchParametersIVF(**how))
        return [self._places_of[row[row >= 0]] for row in ids]

    def _fitting(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """bool: which rows of the lists may be found; None: all."""
        if self._same_places:
            return None if allowed is None else allowed[: len(self._places_of)]
        fits = self._places_of >= 0
        return fits if allowed is None else fits & allowed[self._places_of]

    def _out_of_lists(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> np.ndarray:
        """int64 `[m, k]`: for each query the places of the best rows that are in no list."""
        places = self._places_beside
        fits = None if allowed is None else allowed[places]
        count = min(count, len(places) if fits is None else int(np.count_nonzero(fits)))
        if not count:
            return np.zeros((len(queries), 0), np.int64)
        segments = [one.segment for one in self._beside]
        found, _ = nearest(
            segments, lambda at: self._read(places[at]), queries, count, fits, self.dim
        )
        return places[found]

    # -- writing ---------------------------------------------------------------------------------

    def repair(self) -> list[str]:
        """See `FlatIndex.repair`; damaged lists are deleted, and made again by `settle`."""
        faults = self._lists.check()
        if faults:
            self._lists.remove()
            self.refresh()
        return [*super().repair(), *faults]

    def settle(self) -> None:
        """Make lists, or bring them up to date, if there are rows enough and it pays."""
        from fusemix_core.search.lists import grown, made  # imports faiss

        with self._writing():
            derived, count = self._derived, len(self)
            if count < max(1, self.least):
                if derived or self._lists.fault:
                    self._lists.remove()
            elif derived is None or self._stale(derived):
                self._lists.write(made(self._parts, self._read, self.lists, self.dim))
            elif len(self._places_beside) > _BESIDE * count:
                loaded = self._lists.read(mapped=False)
                if loaded is not None:
                    self._lists.write(grown(loaded, self._beside))
            self._lists.sweep()
            self.refresh()

    def _stale(self, derived: Derived) -> bool:
        listed = self._places_of[self._places_of >= 0]
        living = len(listed) if self._living is None else np.count_nonzero(self._living[listed])
        many = len(self) > _STALE * derived.trained
        asked = (self.lists or derived.index.nlist) != derived.index.nlist
        return bool(many or asked or living < (1 - _GONE) * len(self._places_of))
