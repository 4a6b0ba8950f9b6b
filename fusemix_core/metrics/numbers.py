"""Measures of predicted numbers; `truth` and `predicted` are float `[n]`."""

from __future__ import annotations

import numpy as np


def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The share of the variance that is explained: 0 for the mean, below 0 for worse than it.

    NaN if all of `truth` is alike.
    """
    if np.ptp(truth) == 0:
        return float("nan")
    return float(1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The root of the mean squared error, in the target's units."""
    return float(np.sqrt(((truth - predicted) ** 2).mean()))


def mae(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The mean absolute error, in the target's units."""
    return float(np.abs(truth - predicted).mean())
