"""The measures of HAMMER's paper for real against fake and for the kinds of manipulation."""

from __future__ import annotations

import numpy as np

from fusemix_core.metrics.ranks import average_precision, roc_auc


def detection(margin: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """AUC, EER and accuracy, NaN if all rows are of one class.

    Args:
        margin: `[n]`, above 0 for rows that are judged fake.
        fake: bool `[n]`.
    """
    return {
        "auc": roc_auc(margin, fake),
        "eer": equal_error_rate(margin, fake),
        "accuracy": float(((margin > 0) == fake).mean()),
    }


def equal_error_rate(margin: np.ndarray, fake: np.ndarray) -> float:
    """Where as large a share of real rows is called fake as of fake rows is called real, on the
    straight lines between the points of the ROC curve."""
    if fake.all() or not fake.any():
        return float("nan")
    order = np.argsort(-margin, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(margin[order])), len(margin) - 1]
    hits = np.r_[0, np.cumsum(fake[order])[last]] / fake.sum()
    alarms = np.r_[0, np.cumsum(~fake[order])[last]] / (~fake).sum()
    gap = alarms - (1 - hits)  # rises from -1 to 1
    k = int(np.argmax(gap >= 0))
    share = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float(alarms[k - 1] + share * (alarms[k] - alarms[k - 1]))


def labelling(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """mAP, and F1 of all labels together (OF1) and of the mean precision and recall of labels
    (CF1); a label that nobody is given has a precision of 0.

    Args:
        scores: `[n, K]`, above 0 for labels that are given.
        labels: bool `[n, K]`.
    """
    given = scores > 0
    hits, claims, there = (x.sum(axis=0) for x in (given & labels, given, labels))
    precisions = [average_precision(*one) for one in zip(scores.T, labels.T, strict=True)]
    known = [one for one in precisions if not np.isnan(one)]
    precision = (hits / np.maximum(claims, 1)).mean()
    recall = (hits / np.maximum(there, 1)).mean()
    return {
        "map": float(np.mean(known)) if known else float("nan"),
        "cf1": float(2 * precision * recall / max(precision + recall, 1e-12)),
        "of1": float(2 * hits.sum() / max(claims.sum() + there.sum(), 1)),
    }
