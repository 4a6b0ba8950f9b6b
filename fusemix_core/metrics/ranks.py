"""Ranks, and what follows from them: the areas under curves, and rank correlation."""

from __future__ import annotations

import numpy as np


def average_ranks(values: np.ndarray) -> np.ndarray:
    """float64 `[n]`: the rank of each value from 1, ties at their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half.

    Args:
        scores: `[n]`, larger for the positive class.
        positive: bool `[n]`.

    Returns:
        NaN unless there are both positives and negatives.
    """
    count = int(positive.sum())
    rest = len(positive) - count
    if count == 0 or rest == 0:
        return float("nan")
    above = average_ranks(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * rest))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The mean of the precision at each threshold, weighted by the gain in recall.

    Tied scores are one threshold. NaN if nothing is positive.
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order], dtype=np.float64)
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two `[n]`, NaN if either is constant."""
    a, b = (ranks - ranks.mean() for ranks in (average_ranks(first), average_ranks(second)))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")
