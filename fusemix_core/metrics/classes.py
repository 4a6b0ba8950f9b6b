"""Measures of predicted classes.

`truth` and `predicted` are class indices int64 `[n]`; `probabilities` are float `[n, K]`.
"""

from __future__ import annotations

import numpy as np

from fusemix_core.metrics.ranks import roc_auc


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 `[K, K]`: how many rows of each class (row) were predicted as each (column)."""
    cells = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The share of rows whose class was predicted."""
    return float((truth == predicted).mean())


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The mean recall of the classes that `truth` has."""
    counts = np.bincount(truth)
    hits = np.bincount(truth[truth == predicted], minlength=len(counts))
    there = counts > 0
    return float((hits[there] / counts[there]).mean())


def f1_macro(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 of the classes in `truth` or `predicted`."""
    classes = int(max(truth.max(), predicted.max())) + 1
    table = confusion(truth, predicted, classes)
    both = table.sum(axis=0) + table.sum(axis=1)
    there = both > 0
    return float((2 * table.diagonal()[there] / both[there]).mean())


def log_loss(logarithms: np.ndarray, truth: np.ndarray) -> float:
    """The mean negative log probability of the true class; `logarithms` are those `[n, K]`."""
    return float(-logarithms[np.arange(len(truth)), truth].mean())


def auc_one_vs_rest(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The mean ROC AUC of each class against all others, over the classes in `truth`.

    NaN if there are fewer than two.
    """
    there = np.unique(truth)
    areas = [roc_auc(probabilities[:, k], truth == k) for k in there]
    return float(np.mean(areas)) if len(there) > 1 else float("nan")


def quadratic_kappa(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Cohen's kappa of ordered classes, with weights of the squared distance.

    1 is perfect, 0 is chance. NaN if all rows have one and the same class in both.
    """
    table = confusion(truth, predicted, classes).astype(np.float64)
    place = np.arange(classes)
    cost = (place[:, None] - place) ** 2
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    expected = (cost * chance).sum()
    return float(1 - (cost * table).sum() / expected) if expected > 0 else float("nan")
