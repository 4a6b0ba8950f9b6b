"""The kinds of columns: what each learns from training cells, and the numbers that it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fusemix_core.data.tabular import level, levels, numbers, seconds

YES, NO = frozenset({"true", "yes", "y", "t", "1"}), frozenset({"false", "no", "n", "f", "0"})
DAY = 86_400.0
MOST = 10.0
"""Scaled numbers are cut here."""
LEVELS = 50
"""Categories of a column that have a place of their own."""
RARE = 0.001
"""Categories in a smaller share of the rows share one place."""
_NORMAL = 1.349
"""The distance between the quartiles of a normal distribution of standard deviation 1."""


@dataclass(frozen=True)
class Kind(ABC):
    """How one column becomes numbers.

    Attributes:
        missing: Some training cell was missing: the last place says whether a cell is.
    """

    name: ClassVar[str]
    missing: bool

    @classmethod
    @abstractmethod
    def fit(cls, values: Sequence[Any]) -> Self:
        """Learn from the training cells. None is a missing one; one is filled at least."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers a cell becomes, without that for missing cells."""

    @abstractmethod
    def places(self, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """(finite float `[n, width]`, bool `[n]`: which cells are missing), of any cells."""

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        """float `[n, width]`, with a last place that says which cells are missing if `missing`."""
        found, absent = self.places(values)
        return np.column_stack([found, absent]) if self.missing else found

    def as_dict(self) -> dict[str, Any]:
        """As plain data, `kind` among it."""
        return {"kind": self.name, **asdict(self)}

    def check(self) -> None:  # noqa: B027  most have nothing to check
        """Raise `ValueError` for values that no fit gives."""


@dataclass(frozen=True)
class Number(Kind):
    """(value - centre) / scale: the median, and what would be the standard deviation if the
    quartiles were those of a normal distribution."""

    name = "number"
    centre: float
    scale: float

    @classmethod
    def fit(cls, values: Sequence[Any]) -> Self:
        found = numbers(values)
        return cls(bool(np.isnan(found).any()), *_spread(found))

    @property
    def width(self) -> int:
        return 1

    def places(self, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        found = numbers(values)
        return _scaled(found, self.centre, self.scale)[:, None], np.isnan(found)

    def check(self) -> None:
        _check_scale(self.centre, self.scale)


@dataclass(frozen=True)
class Flag(Kind):
    """1 for yes, -1 for no."""

    name = "yes/no"

    @classmethod
    def fit(cls, values: Sequence[Any]) -> Self:
        return cls(None in values)

    @property
    def width(self) -> int:
        return 1

    def places(self, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        signs = {None: 0}
        for value in set(values) - {None}:
            word = level(value).lower()
            signs[value] = (word in YES) - (word in NO)
        found = np.array([signs[value] for value in values], np.float64)
        return found[:, None], found == 0


@dataclass(frozen=True)
class Category(Kind):
    """A place for each frequent category, and one for all others."""

    name = "category"
    levels: tuple[str, ...]

    @classmethod
    def fit(cls, values: Sequence[Any]) -> Self:
        return cls(None in values, frequent(values))

    @property
    def width(self) -> int:
        return len(self.levels) + 1

    def places(self, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        known = {one: i for i, one in enumerate(self.levels)}
        index, names = levels(values)
        places = np.array([*(known.get(name, len(known)) for name in names), -1], np.int64)
        which = places[index]
        return (which[:, None] == np.arange(self.width)).astype(np.float64), which < 0

    def check(self) -> None:
        if not all(isinstance(one, str) for one in self.levels):
            raise ValueError("categories are texts")


@dataclass(frozen=True)
class Date(Kind):
    """The time as a number, and month, weekday and time of day as points on a circle."""

    name = "date"
    centre: float
    scale: float
    time: bool
    """Whether the cells have a time of day."""

    @classmethod
    def fit(cls, values: Sequence[Any]) -> Self:
        found = seconds(values)
        known = found[~np.isnan(found)]
        time = bool((known % DAY != 0).any())
        return cls(bool(np.isnan(found).any()), *_spread(found), time)

    @property
    def width(self) -> int:
        return 7 if self.time else 5

    def places(self, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        found = seconds(values)
        absent = np.isnan(found)
        filled = np.where(absent, self.centre, found)
        days = np.floor(filled / DAY).astype("datetime64[D]")
        year = days.astype("datetime64[Y]")
        in_year = (days - year.astype("datetime64[D]")).astype(np.float64) / 366
        weekday = (days.astype(np.int64) + 3) % 7 / 7  # 1970-01-01 was a Thursday
        shares = [in_year, weekday, *([filled % DAY / DAY] if self.time else [])]
        parts = [_scaled(found, self.centre, self.scale)]
        for share in shares:
            parts += [np.sin(2 * np.pi * share), np.cos(2 * np.pi * share)]
        whole = np.column_stack(parts)
        whole[absent] = 0
        return whole, absent

    def check(self) -> None:
        _check_scale(self.centre, self.scale)


KINDS: Mapping[str, type[Kind]] = {k.name: k for k in (Number, Flag, Category, Date)}


def kind_of(table: Mapping[str, Any]) -> Kind:
    """The kind that `Kind.as_dict` wrote. Raises `KeyError`, `TypeError` or `ValueError` for
    anything else."""
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in table.items() if k != "kind"
    }
    found = KINDS[table["kind"]](**values)
    found.check()
    return found


def frequent(values: Sequence[Any]) -> tuple[str, ...]:
    """The categories that have a place of their own, in order: those in two cells or more, and in
    `RARE` of all, `LEVELS` at most."""
    counts: Counter[str] = Counter()
    for value, count in Counter(v for v in values if v is not None).items():
        counts[level(value)] += count
    least = max(2, RARE * counts.total())
    kept = [one for one, count in counts.items() if count >= least]
    return tuple(sorted(sorted(kept, key=lambda one: (-counts[one], one))[:LEVELS]))


def _spread(found: np.ndarray) -> tuple[float, float]:
    """(centre, scale) of numbers; NaN does not count."""
    known = found[~np.isnan(found)]
    if not len(known):
        return 0.0, 1.0
    low, centre, high = np.quantile(known, [0.25, 0.5, 0.75])
    scale = (high - low) / _NORMAL
    if not scale > 0:  # more than half are the same
        scale = float(known.std())
    usable = np.isfinite(scale) and scale > 0
    return float(centre), float(scale) if usable else 1.0


def _scaled(found: np.ndarray, centre: float, scale: float) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        whole = (found - centre) / scale
    return np.nan_to_num(np.clip(whole, -MOST, MOST), nan=0.0)


def _check_scale(centre: Any, scale: Any) -> None:
    if not (np.isfinite(centre) and np.isfinite(scale) and scale > 0):
        raise ValueError("a scale is a positive number")
