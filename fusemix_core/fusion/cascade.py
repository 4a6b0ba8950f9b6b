"""Cascades: a row whose prediction from cheap modalities is confident needs no further one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from fusemix_core.fusion.candidates import scores_of
from fusemix_core.fusion.study import Fitted, Study
from fusemix_core.prediction import Task

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_ALL_SUBSETS = 4
"""With more modalities, the cheap ones are one, or all but one."""
Curve = list[list[float]]
"""[threshold, share of rows that need no further modality, accuracy of all rows] of each."""


def confidence(task: Task, scores: Tensor) -> Tensor:
    """float64 `[n]`: the probability of the most probable class; 0 for scores that are NaN."""
    return task.probabilities(scores.double()).max(dim=1).values.nan_to_num(0.0)


def curves(study: Study) -> dict[str, Curve]:
    """Cheap modalities, such as `text + table`, → what a cascade of the chosen fuser that starts
    with them saves, and its accuracy: of validation rows, or of all rows of cross-validation.
    Empty if the task gives no classes."""
    if study.folds[0].task.gives != "classes":
        return {}
    modalities = study.folds[0].test.modalities
    return {" + ".join(one): _curve(study, one) for one in _cheap(modalities)}


def expected(curve: Sequence[Sequence[float]], threshold: float) -> tuple[float, float]:
    """(share of rows, accuracy) at a threshold, interpolated."""
    at, share, accuracy = np.array(curve).T
    return float(np.interp(threshold, at, share)), float(np.interp(threshold, at, accuracy))


def _cheap(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    count = len(modalities)
    sizes = range(1, count) if count <= _ALL_SUBSETS else (1, count - 1)
    return [one for size in sizes for one in combinations(modalities, size)]


def _curve(study: Study, cheap: tuple[str, ...]) -> Curve:
    parts = [_sure_and_right(study, one, cheap) for one in study.folds]
    sure, first, all_ = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = []
    for threshold in THRESHOLDS if len(sure) else ():
        stops = sure >= threshold
        right = np.where(stops, first, all_).mean()
        found.append([threshold, round(float(stops.mean()), 4), round(float(right), 4)])
    return found


def _sure_and_right(
    study: Study, one: Fitted, cheap: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows with a target: confidence from the cheap modalities, 0 if they have none; whether
    the prediction from these is right; whether that from all is."""
    rows = one.test if len(study.folds) > 1 else one.validation
    rows = rows.select(rows.targets.known.nonzero()[:, 0])
    fuser = one.candidates[study.chosen].fitted.fuser
    nothing = one.task.baseline(one.train.targets)
    some, every = scores_of(fuser, rows, nothing, cheap), scores_of(fuser, rows, nothing)
    has = rows.present[:, torch.tensor([m in cheap for m in rows.modalities])].any(dim=1)
    truth = rows.targets.values
    sure = confidence(one.task, some) * has
    return sure.numpy(), _right(some, truth), _right(every, truth)


def _right(scores: Tensor, truth: Tensor) -> np.ndarray:
    return (scores.argmax(dim=1) == truth).numpy()
