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


def concordance(time, event, risk):
    right = pairs = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            first = time[i] < time[j] or (time[i] == time[j] and not event[j])
            if event[i] and i != j and first:
                pairs += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / pairs


def left(time, gone, at, first=None):
    """The share that isn't gone by `at`, one row's time after the other. `first` are the rows that
    leave before others at their time."""
    share = 1.0
    for t in sorted(set(time[gone])):
        if t <= at:
            risk = time >= t
            if first is not None:
                risk = risk & ~((time == t) & first)
            share *= 1 - (gone & (time == t)).sum() / risk.sum()
    return share


def hazard(time, event, at, risk=None):
    risk = np.zeros(len(time)) if risk is None else risk
    total = 0.0
    for t in sorted(set(time[event])):
        if t <= at:
            total += (event & (time == t)).sum() / np.exp(risk[time >= t]).sum()
    return total


def brier(time, event, survival, at, training):
    """At one time; `training` are (time, event) of the rows that censoring is estimated from."""
    total = 0.0
    for t, came, s in zip(time, event, survival, strict=True):
        if t <= at and came:
            total += s**2 / left(training[0], ~training[1], t, training[1])
        elif t > at:
            total += (1 - s) ** 2 / left(training[0], ~training[1], at, training[1])
    return total / len(time)


def partial_likelihood(risk, time, event, weight):
    total = events = 0.0
    for i in np.flatnonzero(event):
        later = time >= time[i]
        total += weight[i] * (np.log((weight * np.exp(risk))[later].sum()) - risk[i])
        events += weight[i]
    return total / events
