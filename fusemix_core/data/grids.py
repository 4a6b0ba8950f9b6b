"""Grids as facts: a cell names a matrix in an `.npy` file, or one matrix of a stack in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusemix_core.data.facts import Fact
from fusemix_core.data.references import Fault, FileReference
from fusemix_core.errors import short

Find = Callable[[str], FileReference | Fault | str]
"""The file that the name in a cell means, or why there is none."""


@dataclass(frozen=True)
class GridPlace:
    """A matrix in a file: the whole of it, or number `number` of a stack."""

    path: str
    number: int | None = None


@dataclass(frozen=True, eq=False)
class GridHeld:
    """A matrix in memory."""

    values: np.ndarray


MOST_DIGITS = 18
"""Of the number of a grid in its file."""


def grid_cell(cell: Any, find: Find) -> GridPlace | GridHeld | Fault:
    """The grid that a filled cell names: `map.npy`, `maps.npy#7`, or is: a matrix."""
    if getattr(cell, "ndim", None) == 2:
        return GridHeld(np.asarray(cell))
    if not isinstance(cell, str):
        return Fault(f"contains a {type(cell).__name__}, not a grid: a matrix, or an .npy file")
    name, hash_sign, number = cell.strip().rpartition("#")
    if not hash_sign or not number.isdecimal() or len(number) > MOST_DIGITS:
        name, number = cell.strip(), ""
    if not name.lower().endswith(".npy"):
        return Fault(f"'{short(name)}' is not a grid: name an .npy file, or FILE.npy#NUMBER")
    file = find(name)
    if not isinstance(file, FileReference):
        return file if isinstance(file, Fault) else Fault("names no file")
    return GridPlace(file.path, int(number) if number else None)


@dataclass
class Grids:
    """Reads grids, all of the shape of the first one. Files are mapped, not read into memory.

    Example:
        Grids()(GridPlace("maps.npy", 7))  # float32 [H, W]
    """

    shape: tuple[int, ...] | None = None
    _files: dict[str, np.ndarray | Fault] = field(default_factory=dict)

    def __call__(self, value: Any) -> np.ndarray | Fault:
        """The grid float32 `[H, W]`, NaN in cells that aren't known; or why it can't be read."""
        found = value.values if isinstance(value, GridHeld) else self._of_file(value)
        if isinstance(found, Fault):
            return found
        if found.ndim != 2 or not found.size or found.dtype.kind not in "biuf":
            return Fault(f"is an array of {found.dtype} of shape {found.shape}, not a grid [H, W]")
        if self.shape is None:
            self.shape = found.shape
        if found.shape != self.shape:
            return Fault(f"is a grid of shape {found.shape}, and others are {self.shape}")
        with np.errstate(over="ignore"):
            return found.astype(np.float32)

    def _of_file(self, place: GridPlace) -> np.ndarray | Fault:
        if place.path not in self._files:
            try:
                self._files[place.path] = np.lib.format.open_memmap(place.path, mode="r")
            except Exception as error:  # NumPy raises what it likes for a damaged header
                self._files[place.path] = Fault(f"{place.path} can't be read: {error}")
        found = self._files[place.path]
        if isinstance(found, Fault) or place.number is None:
            self._files.pop(place.path)  # one file for each row: don't keep them all open
            return found
        if found.ndim != 3 or place.number >= len(found):
            return Fault(
                f"{place.path} is an array of shape {found.shape} and has no grid {place.number}"
            )
        return found[place.number]


def grid_fact(grids: list[np.ndarray | None], at: np.ndarray) -> Fact:
    """The fact whose rows `at` have these grids; those of None or -1 have none."""
    shape = next((one.shape for one in grids if one is not None), (1, 1))
    none = np.full(shape, np.nan, np.float32)
    return Fact("grid", np.stack([none if one is None else one for one in [*grids, None]])[at])
