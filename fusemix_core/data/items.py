"""The unique items of one modality, known by their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.data.media import Medium, Shown, medium
from fusemix_core.data.references import FileReference, Reference
from fusemix_core.errors import DataError


@dataclass(frozen=True, eq=False)
class Origin:
    """Where each of n things was read: `files[file[i]]`, row `row[i]` (1-based, without header)."""

    files: tuple[str, ...]
    file: np.ndarray  # int32 [n]
    row: np.ndarray  # int64 [n]

    def __getitem__(self, i: int) -> tuple[str, int]:
        return self.files[self.file[i]], int(self.row[i])

    def select(self, index: np.ndarray) -> Origin:
        """That of the things `index`, with their files alone."""
        used, file = np.unique(self.file[index], return_inverse=True)
        return Origin(tuple(self.files[i] for i in used), file.astype(np.int32), self.row[index])


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
        """The items `index` alone, in that order."""
        references = [self.references[i] for i in index]
        return replace(
            self,
            references=references,
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


def first_occurrences(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index int64 `[u]` of the first of each distinct row of keys uint64 `[n, 2]`, in order;
    inverse int64 `[n]`: which of these each row equals)."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in order of occurrence
    ordered = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[new]
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    inverse = np.empty(len(keys), np.int64)
    inverse[order] = rank[np.cumsum(new) - 1]
    return np.sort(first), inverse
