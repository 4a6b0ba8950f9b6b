"""Independent forms of the measures: double loops, or scipy's."""

import numpy as np


def auc(scores, positive):
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[positive]
        for b in scores[~positive]
    ]
    return float(np.mean(pairs))


def average_precision(scores, positive):
    """The sum over thresholds, each taken anew."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall = (taken & positive).sum() / positive.sum()
        total += (recall - before) * (taken & positive).sum() / taken.sum()
        before = recall
    return total


def f1_macro(truth, predicted):
    values = []
    for k in sorted({*truth, *predicted}):
        hits = ((truth == k) & (predicted == k)).sum()
        precision = hits / max((predicted == k).sum(), 1)
        recall = hits / max((truth == k).sum(), 1)
        values.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return float(np.mean(values))


def kappa(truth, predicted, classes):
    """The mean squared distance of the rows against that of all pairs of rows."""
    observed = np.mean((truth - predicted) ** 2.0)
    chance = np.mean((truth[:, None] - predicted[None]) ** 2.0)
    return float(1 - observed / chance)


def ece(confidence, right, bins=15):
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total
