"""How far probabilities can be taken at their word: the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15
"""Of equal width, as Guo et al. (2017), https://arxiv.org/abs/1706.04599."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """The points of a reliability plot: predictions in bins of their confidence.

    Attributes:
        confidence: float64 `[B]`, the mean confidence of each bin that has predictions.
        accuracy: float64 `[B]`, the share of them that are right.
        count: int64 `[B]`, how many there are.
        bins: int64 `[B]`, the numbers of these bins.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    bins: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean gap of a bin, weighted by its predictions."""
        gap = np.abs(self.accuracy - self.confidence)
        return float((gap * self.count).sum() / self.count.sum())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with `ece`."""
        points = {name: getattr(self, name).tolist() for name in ("confidence", "accuracy")}
        return {**points, "count": self.count.tolist(), "ece": self.ece}


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability of predictions.

    Args:
        confidence: `[n]` from 0 to 1: the probability of the predicted class.
        right: bool `[n]`: whether it is the true one.
        bins: of equal width; each includes its upper edge.

    Example:
        reliability(p.max(axis=1), p.argmax(axis=1) == truth).ece
    """
    edges = np.linspace(0, 1, bins + 1)[1:]
    place = np.searchsorted(edges, np.clip(confidence, 0, 1))
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, right)]
    there = count > 0
    means = [total[there] / count[there] for total in sums]
    return Reliability(means[0], means[1], count[there], np.flatnonzero(there))


def pooled(parts: Sequence[Reliability]) -> Reliability:
    """The reliability of the predictions of several sets together, all with the same bins.

    Its error is not the mean of theirs: chance makes a gap in each bin, the larger the fewer its
    predictions, and gaps of sets taken apart don't cancel.
    """
    columns = ("confidence", "accuracy", "count", "bins")
    confidence, accuracy, count, bins = (
        np.concatenate([getattr(one, name) for one in parts]) for name in columns
    )
    total = np.bincount(bins, weights=count)
    there = total > 0
    sums = (np.bincount(bins, weights=count * values)[there] for values in (confidence, accuracy))
    mean_confidence, mean_accuracy = (values / total[there] for values in sums)
    counts = total[there].astype(np.int64)
    return Reliability(mean_confidence, mean_accuracy, counts, np.flatnonzero(there))
