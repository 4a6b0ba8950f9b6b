"""Metrics of predictions of several folds."""

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.fusion.parts import Part, metrics
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress

COUNT, FOLDS = 300, 5


def parts_of(kind, fact, scores):
    """Each fifth of the rows as a fold."""
    task = kind.learn({"target": fact})
    found = []
    for k in range(FOLDS):
        rows = np.arange(k, COUNT, FOLDS)
        targets = task.targets({"target": Fact(fact.kind, fact.values[rows], fact.names)})
        found.append(Part(task, targets, rows, {"one": scores[torch.from_numpy(rows)]}, rows))
    return task, found


def test_the_calibration_error_is_of_all_rows_and_other_metrics_are_means_of_folds():
    draw = np.random.default_rng(0)
    scores = torch.from_numpy(draw.standard_normal((COUNT, 3)))
    drawn = [draw.choice(3, p=row) for row in scores.softmax(dim=1).numpy()]
    fact = Fact("class", np.array(drawn, np.int64), ("a", "b", "c"))
    task, parts = parts_of(Classify, fact, scores)
    found, whole = metrics(parts, "one"), task.metrics(scores, task.targets({"target": fact}))
    assert found["ece"] == pytest.approx(whole["ece"])
    each = [task.metrics(part.scores["one"], part.targets) for part in parts]
    assert found["ece"] < np.mean([one["ece"] for one in each]) * 0.7
    for name in ("accuracy", "auc", "log_loss"):
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]))


def test_a_task_without_probabilities_has_means_only():
    draw = np.random.default_rng(0)
    fact = Fact("number", draw.standard_normal(COUNT))
    _, parts = parts_of(Regress, fact, torch.from_numpy(draw.standard_normal((COUNT, 1))))
    assert "ece" not in metrics(parts, "one")
