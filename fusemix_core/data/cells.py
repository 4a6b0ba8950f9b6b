"""From the cells of columns to facts: which kind a column has, and what each cell says."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.data.grids import Find, Grids, grid_cell, grid_fact
from fusemix_core.data.masks import mask_cell, read_mask
from fusemix_core.data.references import Fault, Reference
from fusemix_core.data.rows import is_missing
from fusemix_core.data.texts import text_of
from fusemix_core.errors import ConfigError, short

GRID, MASK = "grid", "mask"
_CELL = {GRID: grid_cell, MASK: mask_cell}
KINDS = ("number", "class", "text", "time", "box", "xywh", "labels", GRID, MASK)
"""The kinds that may follow a column: those of `Fact`, boxes as left, top, width, height, and
labels, read as text: a cell may contain several, and a list of them becomes a JSON list; and masks,
which are grids read from images."""
_MOST = 0.9
"""A column whose kind is not given is of the kind that so many of its filled cells can be read as.
"""
_EXACT = 1 << 24
"""float32 contains every whole number up to this."""
_MOST_BITS = 4096
"""Python turns no whole number of many more into a text."""
_LARGEST = float(np.finfo(np.float32).max)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")


@dataclass(frozen=True)
class FactColumn:
    """Where a fact is read: a column, and the kind it is read as (None: guessed from its cells)."""

    column: str
    kind: str | None = None

    @classmethod
    def parse(cls, text: str) -> FactColumn:
        """`COLUMN` or `COLUMN:KIND`; a column's name may contain colons itself."""
        column, _, kind = text.rpartition(":")
        if column and kind in KINDS:
            return cls(column, kind)
        return cls(text)


@dataclass
class _Cells:
    """The different values in a column, and which of them each row has (-1: none)."""

    ids: dict[tuple[type, Hashable], int] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    at: array = field(default_factory=lambda: array("q"))

    def number(self, value: Any) -> int:
        """Which of the values this is; a new one if it is new."""
        if value is None:
            return -1
        known = self.ids.setdefault((type(value), value), len(self.values))
        if known == len(self.values):
            self.values.append(value)
        return known


class FactCells:
    """Gathers the cells of the facts that are asked for, row by row.

    Args:
        wanted: fact → where it is read.
        is_missing: whether a cell is empty.
    """

    def __init__(
        self, wanted: Mapping[str, FactColumn], is_missing: Callable[[Any], bool] = is_missing
    ) -> None:
        self.wanted, self._is_missing = dict(wanted), is_missing
        self.seen: set[str] = set()
        """The columns that any row had, if only with empty cells."""
        self._cells = {name: _Cells() for name in self.wanted}
        self._rows = 0

    def add(self, values: Mapping[str, Any], find: Find) -> int:
        """Take the cells of a row, column → value; the row's number. `find` finds the files that
        grids are in."""
        for name, place in self.wanted.items():
            if place.column in values:
                self.seen.add(place.column)
            cells = self._cells[name]
            cells.at.append(cells.number(self._value(values.get(place.column), place, find)))
        self._rows += 1
        return self._rows - 1

    def add_all(
        self, columns: Mapping[str, tuple[list[Any], np.ndarray]], count: int, find: Find
    ) -> int:
        """Take the cells of `count` rows: column → (values, which of them each row has). The first
        row's number."""
        for name, place in self.wanted.items():
            cells = self._cells[name]
            if place.column not in columns:
                cells.at.frombytes(np.full(count, -1, np.int64).tobytes())
                continue
            self.seen.add(place.column)
            values, which = columns[place.column]
            numbers = [cells.number(self._value(one, place, find)) for one in values]
            cells.at.frombytes(np.array(numbers, np.int64)[which].tobytes())
        self._rows += count
        return self._rows - count

    def _value(self, cell: Any, place: FactColumn, find: Find) -> Any:
        of_grid = _CELL.get(place.kind or "")
        if of_grid is not None and getattr(cell, "ndim", 0) == 2:
            return of_grid(cell, find)
        value = _plain(cell)
        if self._is_missing(value):
            return None
        given = of_grid is None or isinstance(value, Fault)
        return value if given else of_grid(value, find)

    def read(self) -> tuple[dict[str, Fact], dict[int, str], list[str]]:
        """(the facts of all rows taken; row → why a cell of it can't be read; warnings)."""
        facts: dict[str, Fact] = {}
        faults: dict[int, str] = {}
        warnings: list[str] = []
        for name, place in self.wanted.items():
            cells = self._cells[name]
            at = np.array(cells.at, np.int64)
            kind = place.kind or _guess(
                cells.values, np.bincount(at[at >= 0], minlength=len(cells.values))
            )
            read, wrong = _read(kind, cells.values)
            facts[name] = _fact(kind, read, at)
            for row in np.flatnonzero(np.isin(at, list(wrong))).tolist():
                faults.setdefault(row, f"fact '{name}': {wrong[int(at[row])]}")
            warnings += _warnings(name, place, kind, read, wrong)
        return facts, faults, warnings


def check_names(wanted: Mapping[str, FactColumn], modalities: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a fact whose name means something else already."""
    for name, place in wanted.items():
        if name in modalities:
            raise ConfigError(
                f"The fact '{name}' has the name of a modality.",
                f"Choose another name: --fact {name}_fact={place.column}",
            )
        if name == TRUST:
            raise ConfigError(
                "The fact 'trust' can't be named by --fact.",
                f"Name its column: --trust-column {place.column}",
            )


# -- cells ---------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A cell as a text, number, bool, time or tuple of numbers; None if empty, or a `Fault`."""
    if isinstance(value, str | bytes | Reference):
        value = text_of(value)
    elif hasattr(value, "tolist"):  # of NumPy: a number, or an array
        value = value.tolist()
    if isinstance(value, list | tuple):
        if all(type(one) in (int, float) for one in value):
            return tuple(value) or None
        if all(type(one) is str for one in value):
            return tuple(value)
        return Fault("contains a list")
    if is_missing(value) or value != value:  # such as pandas.NaT
        return None
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return Fault(f"contains a whole number of more than {_MOST_BITS:,} bits")
    if isinstance(value, (str, bool, int, float, Decimal, date, Fault)):
        return value
    return Fault(f"contains a {type(value).__name__}")


def _guess(values: list[Any], counts: np.ndarray) -> str:
    """The kind of a column from its different values and how often each occurs."""
    forms: Counter[str] = Counter()
    for value, count in zip(values, counts.tolist(), strict=True):
        if not isinstance(value, Fault):
            forms[_form(value)] += count
    filled = forms.total()
    for kind in ("class", "number", "time", "box"):
        if filled and forms[kind] >= _MOST * filled:
            return kind
    return "class" if filled and 2 * len(values) <= filled else "text"


def _form(value: Any) -> str:
    """What a cell looks like by itself."""
    if isinstance(value, bool):
        return "class"
    if _number(value) is not None:
        return "number"
    if isinstance(value, date) or (isinstance(value, str) and _DATE.match(value)):
        return "text" if _seconds(value) is None else "time"
    return "text" if _four(value) is None else "box"


def _number(value: Any) -> float | None:
    """A number, finite or not; None for what is none, such as `1_000`."""
    if isinstance(value, str) and "_" in value:
        return None
    with suppress(TypeError, ValueError):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None


def _seconds(value: Any) -> float | None:
    """Seconds since 1970-01-01 UTC; without a zone a time is meant to be UTC."""
    number = None if isinstance(value, bool) else _number(value)
    if number is not None:
        return number
    with suppress(AttributeError, TypeError, ValueError, OverflowError):
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return (value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    return None


def _four(value: Any) -> list[float] | None:
    """The four numbers of a box: a list, or a text such as `1,2,3,4` or `[1, 2, 3, 4]`."""
    if isinstance(value, str):
        whole = value if value.startswith("[") else f"[{value}]"
        try:
            value = json.loads(whole)
        except RecursionError:
            return None
        except ValueError:  # JSON has no `.5`, nor `5.`
            value = whole[1:-1].split(",") if whole.endswith("]") else ()
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if any(isinstance(one, bool) for one in value):
        return None
    numbers = [number for one in value if (number := _number(one)) is not None]
    return numbers if len(numbers) == 4 else None


def name_of(value: Any) -> str:
    """A class or text as its name: whole numbers without `.0`, times in ISO 8601."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value.isoformat() if isinstance(value, date) else str(value)


# -- values --------------------------------------------------------------------------------------


def _read(kind: str, values: list[Any]) -> tuple[list[Any], dict[int, str]]:
    """(what each value is as this kind, None for those that are in the second; index → reason)."""
    read, wrong = [], {}
    how = Grids() if kind == GRID else _READ[kind]
    for i, value in enumerate(values):
        result = value if isinstance(value, Fault) else how(value)
        if isinstance(result, Fault):
            wrong[i] = result.reason
        read.append(None if isinstance(result, Fault) else result)
    return read, wrong


def _read_number(value: Any) -> float | Fault:
    number = _number(value)
    if number is None:
        return Fault(f"'{_shown(value)}' is not a number")
    if abs(number) > _LARGEST:
        return Fault(f"'{_shown(value)}' is not a finite number of 32 bits")
    return number


def _read_time(value: Any) -> float | Fault:
    seconds = _seconds(value)
    if seconds is None or math.isinf(seconds):
        return Fault(
            f"'{_shown(value)}' is not a time such as 2024-05-31 or 2024-05-31T12:00+02:00"
        )
    return seconds


def _read_box(value: Any, sizes: bool = False) -> list[float] | Fault:
    box = _four(value)
    if box is not None and sizes:
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    if box is None or not all(abs(edge) <= _LARGEST for edge in box):
        return Fault(f"'{_shown(value)}' is not a box of four numbers")
    if box[2] < box[0] or box[3] < box[1]:
        why = "its width or height is negative" if sizes else "its right or bottom comes first"
        hint = "" if sizes else "; left, top, width, height are read by the kind xywh"
        return Fault(f"'{_shown(value)}' is not a box: {why}{hint}")
    return box


def _read_name(value: Any) -> str | Fault:
    return Fault("contains a list") if isinstance(value, tuple) else name_of(value)


def _read_labels(value: Any) -> str | Fault:
    listed = isinstance(value, tuple)
    return json.dumps(list(map(name_of, value)), ensure_ascii=False) if listed else name_of(value)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "number": _read_number,
    "class": _read_name,
    "text": _read_name,
    "time": _read_time,
    "box": _read_box,
    "xywh": lambda value: _read_box(value, sizes=True),
    "labels": _read_labels,
    MASK: read_mask,
}


def _fact(kind: str, read: list[Any], at: np.ndarray) -> Fact:
    """The fact whose rows `at` have these values, -1 or None if they have none."""
    if kind in ("class", "text", "labels"):
        names = list(dict.fromkeys(one for one in read if one is not None))
        if kind == "class":
            names = _sorted(names)
        index = {name: i for i, name in enumerate(names)}
        ids = np.array([index.get(one, -1) for one in read] + [-1], np.int64)
        return Fact("class" if kind == "class" else "text", ids[at], tuple(names))
    if kind in ("box", "xywh"):
        none = [math.nan] * 4
        boxes = np.array([one or none for one in read] + [none], np.float32)
        return Fact("box", boxes[at])
    if kind in _CELL:
        return grid_fact(read, at)
    values = [math.nan if one is None else one for one in read]
    if kind == "number":
        return Fact("number", np.array([*values, math.nan], np.float32)[at])
    return Fact("time", np.array([*values, math.nan], np.float64)[at])


def _sorted(names: list[str]) -> list[str]:
    numbers = {name: _number(name) for name in names}
    if any(number is None or math.isnan(number) for number in numbers.values()):
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))


def _warnings(
    name: str, place: FactColumn, kind: str, read: list[Any], wrong: Mapping[int, str]
) -> list[str]:
    """What the user should know of a fact."""
    if not read:
        return [f"The fact '{name}' is missing in all rows: the column '{place.column}' is empty."]
    warnings = []
    if wrong and place.kind is None:
        warnings.append(
            f"The fact '{name}' is read as {kind}, as most of its cells are. To read all of them "
            f"as texts: --fact {name}={place.column}:text"
        )
    whole = [one for one in read if kind == "number" and one is not None and abs(one) > _EXACT]
    if lost := sum(float(np.float32(one)) != one and one.is_integer() for one in whole):
        warnings.append(
            f"The fact '{name}' has {lost:,} whole numbers that 32 bits round. If they are names: "
            f"--fact {name}={place.column}:class"
        )
    return warnings


def _shown(value: Any) -> str:
    return short(list(value) if isinstance(value, tuple) else value, 60)
