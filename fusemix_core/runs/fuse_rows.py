"""The rows of a fold, with their latents and targets, and the task that is learnt from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from fusemix_core.fuser import Labelled
from fusemix_core.fusion.folds import Fold
from fusemix_core.prediction import Task
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.targets import Targeted

FoldRows = tuple[Task, Labelled, Labelled, Labelled, np.ndarray]
"""A fold as `study` takes it."""


def fold_task(targets: Targeted, fits: Sequence[Fold], fold: Fold) -> Task:
    """The task of a fold. Coding, such as the names of the classes, is that of all rows, so that
    scores of different folds mean the same."""
    task = targets.task(fold.train)
    coding = task.gives != "survival" and len(fits) > 1
    return targets.task(np.concatenate(astuple(fold))) if coding else task


def fold_rows(targets: Targeted, encoded: Encoded, fold: Fold, task: Task) -> FoldRows:
    """Task, training, validation and test rows, and the numbers of the test rows."""
    train, validation, test = (targets.labelled(encoded.tables, one, task) for one in astuple(fold))
    return task, train, validation, test, fold.test
