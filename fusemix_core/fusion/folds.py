"""Which rows are for training, for choosing and for measuring: one split, or folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

INNER = 0.1
"""The share of a fold's training rows that choices are made on."""


@dataclass(frozen=True)
class Fold:
    """Rows of a data set, int64, none of them in two parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def folds_of(
    splits: Mapping[str, np.ndarray], groups: np.ndarray, folds: int, seed: int
) -> list[Fold]:
    """The given split as one fold; with `folds` that many, whose test rows are all rows.

    Args:
        splits: `train`, `validation` and `test` → rows.
        groups: int64, by row; no group is in two parts.
        folds: 0 for the given split.
        seed: decides which groups are in which fold.
    """
    if not folds:
        return [Fold(splits["train"], splits["validation"], splits["test"])]
    rows = np.sort(np.concatenate(list(splits.values())))
    part = assigned(groups[rows], folds, seed)
    found = []
    for number in range(folds):
        rest = rows[part != number]
        inner = assigned(groups[rest], round(1 / INNER), seed + 1)
        held = inner == 0 if len(np.unique(groups[rest])) > 2 else np.zeros(len(rest), bool)
        found.append(Fold(rest[~held], rest[held], rows[part == number]))
    return found


def assigned(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """int64 `[n]`: which of `count` parts each row is in. Groups are taken at random, and each goes
    to the part with the fewest rows."""
    _, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part, filled = np.zeros(len(sizes), np.int64), np.zeros(count, np.int64)
    for group in order:
        part[group] = filled.argmin()
        filled[part[group]] += sizes[group]
    return part[of]
