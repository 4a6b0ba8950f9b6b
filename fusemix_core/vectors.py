"""`Index`: vectors by content key on disk, searched by inner product. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np


class Index(ABC):
    """Vectors on disk, found by inner product; built as `Index(folder, dim, kept, **options)`.

    A row is an embedding of `dim` numbers and the `kept` columns that `Scorer.lift` adds to it.
    An index may round the first to find candidates; it keeps the others exact, as few as they are.

    One process writes at a time, and any number read. A write is complete or has not happened,
    whenever the process is killed. An index that is open answers as it was when it was opened or
    last refreshed.

    Args:
        folder: Where its files are; it is created by the first write.
        dim: Numbers per embedding.
        kept: Columns behind them.
    """

    def __init__(self, folder: str | Path, dim: int, kept: int) -> None:
        self.folder, self.dim, self.kept = Path(folder), dim, kept

    @property
    @abstractmethod
    def keys(self) -> np.ndarray:
        """uint64 `[n, 2]`: the content keys of the vectors, all different."""

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Add vectors; those of keys that are there already are left out.

        Args:
            keys: uint64 `[n, 2]`, all different.
            rows: float32 `[n, dim + kept]`, finite.

        Raises:
            ArtefactError: The folder can't be written.
        """

    @abstractmethod
    def remove(self, keys: np.ndarray) -> int:
        """Remove the vectors of these keys, uint64 `[n, 2]`; how many were there."""

    @abstractmethod
    def search(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The vectors with the largest inner products, largest first.

        Args:
            queries: float32 `[m, dim + kept]`.
            count: How many to find, at least 1.
            allowed: bool `[n]`, in the order of `keys`: which may be found. None: all.

        Returns:
            keys uint64 `[m, k, 2]` and inner products float32 `[m, k]`, where k is `count`, or the
            number of allowed vectors if that is smaller.
        """

    @abstractmethod
    def rows(self, keys: np.ndarray) -> np.ndarray:
        """float32 `[n, dim + kept]`: the vectors of keys, uint64 `[n, 2]`.

        Raises:
            KeyError: One is not there.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Take in the writes of other processes."""

    @abstractmethod
    def check(self) -> list[str]:
        """Read everything; a sentence for each fault. Changes nothing."""

    @abstractmethod
    def repair(self) -> list[str]:
        """Remove the vectors that can't be read; a sentence for each fault mended. They may then be
        added again."""

    @abstractmethod
    def compact(self) -> None:
        """Write the files anew, without what was removed."""

    def settle(self) -> None:  # noqa: B027  most have nothing to do
        """Called when an update is complete: make what searches are faster with, if it pays.

        Searches are right before, too.
        """
