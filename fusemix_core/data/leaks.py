"""Columns of a table that give the target away.

A column that is filled only when the target is known makes a model perfect on its own data and
useless on others. Such a column predicts the target almost perfectly by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusemix_core.data.facts import Fact
from fusemix_core.data.tabular import levels, numbers
from fusemix_core.errors import short

LEAST = 30
"""With fewer rows a perfect column may be chance."""
_EACH = 5
"""Rows that each of two classes must have."""
_AUC, _RANKS, _SQUARED, _NAMED = 0.99, 0.98, 0.9, 0.5
_ERROR = 0.02
"""A column that leaves less than this share of the errors of the commonest class gives it away."""
_MOSTLY = 0.95
_WORD = re.compile(r"[a-zA-Z]{2,}")
_SAYS = frozenset({"predicted", "prediction", "pred", "predictions", "estimated", "fitted"})
_COMMON = 3
"""Words in common with the target's name that make a column suspicious."""


def leaks(
    items: Sequence[Mapping[str, Any] | None],
    target: Fact,
    groups: np.ndarray | None = None,
    *,
    name: str = "",
    modality: str = "table",
) -> list[str]:
    """A sentence for each column that gives the target away, or may.

    Args:
        items: The table's cells of each row, column → value; None if the row has no table.
        target: The fact to predict, of the same rows.
        groups: int64 `[n]`, -1 without one. A category says nothing of a row by the rows of its
            own group.
        name: The target's column, whose words may be in the name of another.
        modality: The name of the table, for the remedy.

    Example:
        leaks([{"dose": 1, "died": "yes"}, …], dataset.facts["outcome"])
    """
    filled = {i: one for i, one in enumerate(items) if one is not None}
    known = np.array([i for i in np.flatnonzero(~target.missing).tolist() if i in filled], int)
    if len(known) < LEAST or target.values.ndim != 1:
        return []
    groups = np.full(len(items), -1) if groups is None else groups
    groups, target = _apart(groups[known]), target.select(known)
    rows = [filled[i] for i in known.tolist()]
    judge = _of_classes if target.kind in ("class", "text") else _of_numbers
    values = _centred(target.values) if judge is _of_numbers else target.values
    found = []
    for column in sorted({one for row in rows for one in row}):
        cells = [row.get(column) for row in rows]
        if why := judge(cells, values, groups, _words(column), _words(name)):
            found.append(_sentence(column, why, modality))
    return found


def _sentence(column: str, why: str, modality: str) -> str:
    return (
        f"The column '{short(column)}' of {modality} {why}. If it is not known before the target "
        f"is: --drop '{modality}={column}'"
    )


def _apart(groups: np.ndarray) -> np.ndarray:
    """The groups as numbers from 0; rows without one are groups of their own."""
    alone = groups < 0
    groups = np.where(alone, groups.max(initial=-1) + 1 + np.arange(len(groups)), groups)
    return np.unique(groups, return_inverse=True)[1]


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


# -- classes -------------------------------------------------------------------------------------


def _of_classes(
    cells: Sequence[Any], target: np.ndarray, groups: np.ndarray, words: set, wanted: set
) -> str:
    """How a column gives classes away; "" if it doesn't."""
    classes, target = np.unique(target, return_inverse=True)
    commonest = np.bincount(target).max() / len(target)
    if len(classes) < 2:
        return ""
    found = numbers(cells)
    there = ~np.isnan(found)
    filled = sum(cell is not None for cell in cells)
    if filled and there.sum() >= max(_MOSTLY * filled, LEAST):
        if len(classes) == 2:
            area = _auc(found[there], target[there] == 1)
            if area > _AUC:
                return f"gives the target away: by itself it has an AUC of {area:.3f}"
        elif _error_of_neighbours(found[there], target[there], groups[there]) < _ERROR * (
            1 - commonest
        ):
            return "gives the target away: rows of like values are of one class"
    index, names = levels(cells)
    if _error_by_category(index, target, groups) < _ERROR * (1 - commonest):
        if len(names) == 1:
            return "gives the target away: it is filled for one class only"
        return f"gives the target away: each of its {len(names):,} values is of one class"
    return ""


def _auc(values: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve of the values or of their negatives, the larger; .5 if there are
    too few."""
    count = int(positive.sum())
    if min(count, len(positive) - count) < _EACH:
        return 0.5
    area = (_ranks(values)[positive].mean() - (count + 1) / 2) / (len(positive) - count)
    return max(area, 1 - area)


def _error_of_neighbours(values: np.ndarray, target: np.ndarray, groups: np.ndarray) -> float:
    """The share of rows whose nearest row of another group, by value, is of another class."""
    order = np.argsort(values, kind="stable")
    values, target, groups = values[order], target[order], groups[order]
    gap = np.where(np.diff(groups) != 0, np.diff(values), np.inf)
    before, after = np.append(np.inf, gap), np.append(gap, np.inf)
    nearest = np.arange(len(values)) + np.where(before <= after, -1, 1)
    has = np.isfinite(np.minimum(before, after))
    same = target[nearest.clip(0, len(values) - 1)] == target
    return 1 - float((same & has).mean())


def _error_by_category(index: np.ndarray, target: np.ndarray, groups: np.ndarray) -> float:
    """The share of rows whose class is not the commonest among the rows of other groups that have
    the same value (-1: none)."""
    index, kinds = index + 1, int(target.max()) + 1
    if len(np.unique(index)) < 2 or len(np.unique(index)) * 2 > len(index):
        return 1.0
    whole = np.zeros((int(index.max()) + 1, kinds), np.int64)
    np.add.at(whole, (index, target), 1)
    pairs, pair = np.unique(index * (int(groups.max()) + 1) + groups, return_inverse=True)
    own = np.zeros((len(pairs), kinds), np.int64)
    np.add.at(own, (pair, target), 1)
    others = whole[index] - own[pair]
    right = (others.argmax(1) == target) & (others.sum(1) > 0)
    return 1 - float(right.mean())


# -- numbers -------------------------------------------------------------------------------------


def _of_numbers(
    cells: Sequence[Any], target: np.ndarray, groups: np.ndarray, words: set, wanted: set
) -> str:
    """How a column gives a number away; "" if it doesn't."""
    found = numbers(cells)
    there = ~np.isnan(found)
    filled = sum(cell is not None for cell in cells)
    if filled and there.sum() >= max(_MOSTLY * filled, LEAST):
        values, wished = found[there], target[there]
        ranks = abs(_correlation(_ranks(values), _ranks(wished)))
        squared = _correlation(_centred(values), wished) ** 2
        if ranks > _RANKS:
            return f"gives the target away: by itself it has a Spearman correlation of {ranks:.3f}"
    else:
        index, _ = levels(cells)
        squared = _explained(index, target, groups)
        if squared > _RANKS:
            return f"gives the target away: by itself it explains {squared:.1%} of its variance"
    if squared > _SQUARED:
        return f"may contain the target: by itself it explains {squared:.1%} of its variance"
    named = len(words & wanted) >= _COMMON or bool(words & _SAYS)
    if squared > _NAMED and named:
        return (
            f"may contain the target: it is named like it and explains {squared:.1%} of its "
            "variance"
        )
    return ""


def _explained(index: np.ndarray, target: np.ndarray, groups: np.ndarray) -> float:
    """The share of the variance that the mean of the rows of other groups with the same value
    explains."""
    index = index + 1
    if len(np.unique(index)) * 2 > len(index):
        return 0.0
    pair = np.unique(index * (int(groups.max()) + 1) + groups, return_inverse=True)[1]
    count = np.bincount(index)[index] - np.bincount(pair)[pair]
    total = np.bincount(index, target)[index] - np.bincount(pair, target)[pair]
    mean = np.where(count > 0, total / np.maximum(count, 1), target.mean())
    variance = target.var()
    return 0.0 if variance == 0 else max(0.0, 1 - float(((target - mean) ** 2).mean() / variance))


def _centred(values: np.ndarray) -> np.ndarray:
    """float64, of mean 0 and at most 1: sums of squares stay finite."""
    largest = float(np.abs(values).max(initial=0))
    values = values.astype(np.float64) / largest if largest else values.astype(np.float64)
    return values - values.mean()


def _ranks(values: np.ndarray) -> np.ndarray:
    """float64 `[n]`: ranks from 1, equal values the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0
