"""Measures of many samples of the same rows at once, as a bootstrap draws them.

`times` is int64 `[R, n]`: how often each of n rows is in each of R samples. Every function gives
float64 `[R]`, NaN for a sample whose measure is undefined. Each equals the measure of that name on
the repeated rows.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1024
"""Rows with an event that are compared with all rows at once."""


def mean(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean of `values` `[n]`."""
    return _ratio(times @ values, times.sum(axis=1))


def r2(truth: np.ndarray, predicted: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The share of the variance that is explained; see `numbers.r2`."""
    truth, error = truth - truth.mean(), (truth - predicted) ** 2
    count, total, squares = (times @ part for part in (np.ones_like(truth), truth, truth**2))
    spread = squares - _ratio(total**2, count)
    spread[spread <= 1e-12 * squares] = 0
    return 1 - _ratio(times @ error, spread)


def roc_auc(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How often a positive row scores above a negative one; see `ranks.roc_auc`."""
    order = np.argsort(scores, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    of_class = [times[:, order] * flag[order] for flag in (positive, ~positive)]
    yes, no = (np.add.reduceat(part, first, axis=1, dtype=np.float64) for part in of_class)
    below = np.cumsum(no, axis=1) - no / 2
    return _ratio((yes * below).sum(axis=1), yes.sum(axis=1) * no.sum(axis=1))


def quadratic_kappa(
    truth: np.ndarray, predicted: np.ndarray, classes: int, times: np.ndarray
) -> np.ndarray:
    """Cohen's kappa of ordered classes; see `classes.quadratic_kappa`."""
    eye, place = np.eye(classes), np.arange(classes)
    cost = ((place[:, None] - place) ** 2).astype(np.float64)
    of_truth, of_found = (times @ eye[index] for index in (truth, predicted))
    expected = ((of_truth @ cost) * of_found).sum(axis=1) / times.sum(axis=1)
    return 1 - _ratio(times @ ((truth - predicted) ** 2.0), expected)


def concordance(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Harrell's c; see `survival.concordance`. O(R n events) in time."""
    right, pairs = np.zeros(len(times)), np.zeros(len(times))
    drawn = times.astype(np.float64)
    rows = np.flatnonzero(event)
    for start in range(0, len(rows), BLOCK):
        own = rows[start : start + BLOCK]
        at = time[own, None]
        later = ((time > at) | ((time == at) & ~event)).astype(np.float64)
        ahead = (np.sign(risk[own, None] - risk) + 1) / 2 * later
        right += ((drawn[:, own] @ ahead) * drawn).sum(axis=1)
        pairs += ((drawn[:, own] @ later) * drawn).sum(axis=1)
    return _ratio(right, pairs)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
