"""Cells of a table as numbers, times and names of categories, many at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")


def numbers(values: Sequence[Any]) -> np.ndarray:
    """float64 `[n]`: the cells as numbers, NaN for None, infinity and what is not a number."""
    filled = [np.nan if value is None else value for value in values]
    try:
        found = np.array(filled, np.float64)
    except (ValueError, TypeError, OverflowError):
        found = np.array([_number(value) for value in filled], np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def _number(value: Any) -> float:
    with suppress(ValueError, TypeError, OverflowError):
        return float(value)
    return np.nan


def seconds(values: Iterable[Any]) -> np.ndarray:
    """float64 `[n]`: the cells as seconds since 1970-01-01, by the clock that they show; NaN for
    None and what is not a date in ISO 8601."""
    return np.array([_seconds(value) for value in values], np.float64)


def _seconds(value: Any) -> float:
    if isinstance(value, str) and _DATE.match(value):
        with suppress(ValueError, OverflowError):
            shown = datetime.fromisoformat(value).replace(tzinfo=None)
            return (shown - datetime(1970, 1, 1)).total_seconds()
    return np.nan


def level(value: Any) -> str:
    """The category that a cell names: `3`, `3.0` and `"3"` name one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    match = _WHOLE.fullmatch(text)
    return match[1] if match else text


def levels(values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
    """(int64 `[n]`: the category of each cell, -1 for None; their names, as they first appear)."""
    names: dict[str, int] = {}
    known: dict[Any, int] = {None: -1}
    for value in dict.fromkeys(values):
        if value is not None:
            known[value] = names.setdefault(level(value), len(names))
    return np.array([known[value] for value in values], np.int64), list(names)
