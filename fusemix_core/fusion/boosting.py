"""Gradient boosting on the leading directions of each modality: a baseline that isn't linear. Needs
scikit-learn, which is optional."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.fuser import Labelled
from fusemix_core.fusers.features import Features
from fusemix_core.fusion.candidates import Candidate
from fusemix_core.padded import as_rows
from fusemix_core.prediction import Task
from fusemix_core.project import install
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress

BOOSTING = "boosting"
DIRECTIONS = 30
"""The most of a modality."""
_TREES = 300
"""The most of all classes together: a fit of some thousand rows takes seconds."""
_ROUNDS = (20, 100)
"""The fewest and the most trees of a class."""
MISSING = (
    "The baseline 'boosting' is left out: scikit-learn is not installed. "
    f"Install it: {install('scikit-learn>=1.6')}"
)


def installed() -> bool:
    """Whether scikit-learn is there."""
    return importlib.util.find_spec("sklearn") is not None


def boosting(train: Labelled, task: Task, seed: int) -> dict[str, Candidate]:
    """The candidate by its name; nothing if the task has neither classes nor numbers, or without
    scikit-learn."""
    if not (isinstance(task, Classify | Regress) and installed()):
        return {}
    began = time.monotonic()
    predict = boosted(train, task, seed)
    return {BOOSTING: Candidate(BOOSTING, "baseline", predict, time.monotonic() - began)}


def boosted(train: Labelled, task: Classify | Regress, seed: int) -> Callable[[Labelled], Tensor]:
    """scikit-learn's histogram gradient boosting, fitted to rows.

    Args:
        train: rows with a target. A modality that is missing is NaN, which trees know.
        task: of classes, or of a number.
        seed: of the fit.

    Returns:
        rows → scores float32 `[n, C]`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    maps = [
        Features.of(as_rows(train.latents(m)), train.present[:, k], DIRECTIONS)
        for k, m in enumerate(train.modalities)
    ]
    known = train.targets.known
    X, y = _columns(maps, train)[known.numpy()], train.targets.values[known].numpy()
    fewest, most = _ROUNDS
    rounds = min(max(_TREES // task.outputs, fewest), most)
    how: dict[str, Any] = {
        "max_iter": rounds,
        "learning_rate": min(0.3, 10 / rounds),
        "max_leaf_nodes": 15,
        "early_stopping": False,
        "random_state": seed,
    }
    if len(np.unique(y)) < 2:
        nothing = task.baseline(train.targets)
        return lambda rows: nothing.expand(len(rows), -1)
    if isinstance(task, Regress):
        values = HistGradientBoostingRegressor(**how).fit(X, y)
        return lambda rows: _tensor(values.predict(_columns(maps, rows))[:, None])
    classes = HistGradientBoostingClassifier(**how).fit(X, y)

    def predict(rows: Labelled) -> Tensor:
        found = np.full((len(rows), task.outputs), 1e-6)  # of classes without a training row
        found[:, classes.classes_] = classes.predict_proba(_columns(maps, rows)).clip(1e-6)
        return _tensor(np.log(found))

    return predict


def _columns(maps: list[Features], rows: Labelled) -> np.ndarray:
    """float32 `[n, D]`: the directions of all modalities."""
    found = []
    for k, (m, features) in enumerate(zip(rows.modalities, maps, strict=True)):
        there = rows.present[:, k]
        own = features(as_rows(rows.latents(m)), there)
        found.append(torch.where(there[:, None], own, torch.nan))
    return torch.cat(found, dim=1).float().numpy()


def _tensor(scores: np.ndarray) -> Tensor:
    return torch.from_numpy(scores).float()
