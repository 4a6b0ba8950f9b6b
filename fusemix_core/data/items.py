"""The unique items of one modality, known by their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from fusemix_core.data.arrow_texts import Texts
from fusemix_core.data.media import Medium, Shown, medium
from fusemix_core.data.numbers import members
from fusemix_core.data.references import FileReference, Reference
from fusemix_core.errors import DataError


@dataclass(frozen=True, eq=False)
class Origin:
    """Where each of n things was read: `files[file[i]]`, row `row[i]` (1-based, without header)."""

    files: tuple[str, ...]
    file: np.ndarray  # int [n]
    row: np.ndarray  # int [n]

    def __getitem__(self, i: SupportsIndex) -> tuple[str, int]:
        return self.files[self.file[i]], int(self.row[i])

    def select(self, index: np.ndarray | slice) -> Origin:
        """That of the things `index` (int64, or a slice), with their files only."""
        used = members(self.file[index], len(self.files))
        number = (np.cumsum(used) - 1).astype(self.file.dtype)
        files = tuple(name for name, here in zip(self.files, used, strict=True) if here)
        return Origin(files, number[self.file[index]], self.row[index])

    def count(self) -> int:
        """How many different rows there are."""
        if not len(self.row):
            return 0
        place = self.file.astype(np.int64) * (int(self.row.max()) + 1) + self.row
        steps = np.diff(place)
        if (steps >= 0).all():
            return 1 + int((steps > 0).sum())
        return len(np.unique(place))


@dataclass(frozen=True, eq=False)
class Items:
    """The unique items of one modality.

    takes: the name of their medium. references: for each item its text if the medium is inline, or
    where its bytes are. keys: uint64 `[n, 2]`, the 128-bit `content_key` of its bytes (of its text
    in UTF-8), all different.
    origin: the row in which each was met first. Can be pickled for worker processes.
    """

    modality: str
    takes: str
    references: Sequence[str | Reference]
    keys: np.ndarray
    origin: Origin

    def __len__(self) -> int:
        return len(self.references)

    @property
    def medium(self) -> Medium:
        """How the items arrive."""
        return medium(self.takes)

    def select(self, index: np.ndarray) -> Items:
        """The items `index` only, in that order."""
        return replace(
            self,
            references=chosen(self.references, index),
            keys=self.keys[index],
            origin=self.origin.select(index),
        )

    def load(self, i: int, sample_rate: int | None = None) -> Any:
        """Item i as the encoder's `collate` takes it; see `Medium.decode`.

        Raises `DataError`, with file and row, if it can't be read.
        """
        reference = self.references[i]
        path, row = self.origin[i]
        try:
            if isinstance(reference, str | FileReference):
                value = reference if isinstance(reference, str) else Path(reference.path)
            else:
                value = reference.read()
            return self.medium.decode(value, sample_rate)
        except DataError as error:
            inside = "" if isinstance(reference, str | FileReference) else f"{reference}: "
            raise DataError(inside + error.message, error.hint, path=path, row=row) from error
        except OSError as error:
            raise DataError(f"{reference} can't be read: {error}", path=path, row=row) from error

    def describe(self, i: int) -> str:
        """The text itself, or the path to show to people."""
        return str(self.references[i])

    def show(self, i: int) -> Shown:
        """Item i for a report."""
        return self.medium.show(self.describe(i), lambda: self.load(i))

    def read_bytes(self, i: int) -> bytes:
        """The bytes of item i as they lie in its file (the UTF-8 of a text). Raises OSError."""
        reference = self.references[i]
        return reference.encode() if isinstance(reference, str) else reference.read()


def chosen(references: Sequence[str | Reference], index: np.ndarray) -> Sequence[str | Reference]:
    """The references `index`, in that order."""
    if isinstance(references, Texts) and (np.diff(index) > 0).all():
        return references.take(index)
    return [references[i] for i in index]


def first_occurrences(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index int64 `[u]` of the first of each distinct row of keys uint64 `[n, 2]`, in order;
    inverse int64 `[n]`: which of these each row equals)."""
    part = (keys[:, 0] >> np.uint64(32)).astype(np.uint32)
    twice = np.sort(part)
    twice = twice[1:][twice[1:] == twice[:-1]]
    if len(twice) > len(keys) // 8:
        return _first_by_order(keys)
    if not len(twice):
        return np.arange(len(keys)), np.arange(len(keys))
    near = np.zeros(1 << 20, bool)
    near[twice >> 12] = True
    maybe = np.flatnonzero(near[part >> 12])
    at = np.minimum(np.searchsorted(twice, part[maybe]), len(twice) - 1)
    tied = maybe[twice[at] == part[maybe]]  # in a part of the key, at least
    first, inverse = _first_by_order(keys[tied])
    is_first = np.ones(len(keys), bool)
    is_first[tied] = False
    is_first[tied[first]] = True
    number = np.cumsum(is_first) - 1
    number[tied] = number[tied[first]][inverse]
    return np.flatnonzero(is_first), number


def _first_by_order(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`first_occurrences` by sorting all of them."""
    order = np.argsort(keys[:, 0])
    ordered = keys[order, 0]
    same = np.zeros(len(keys), bool)
    same[1:] = ordered[1:] == ordered[:-1]
    new = ~same
    if (
        same.any()
    ):  # equal halves: the same key, kept in order of occurrence, or half a key in common
        same[:-1] |= same[1:]
        ties = order[same]
        order[same] = ties[np.lexsort((ties, keys[ties, 1], keys[ties, 0]))]
        new[1:] |= keys[order[1:], 1] != keys[order[:-1], 1]
    first = order[new]
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    inverse = np.empty(len(keys), np.int64)
    inverse[order] = rank[np.cumsum(new) - 1]
    return np.sort(first), inverse
