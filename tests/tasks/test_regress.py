"""Numbers: standardised inside, in the target's units outside."""

import json

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.tasks.regress import Regress

VALUES = np.array([100, 250, np.nan, 400, 130], np.float32)
FACTS = {"target": Fact("number", VALUES)}


@pytest.fixture
def task():
    return Regress.learn(FACTS)


def test_the_task_is_built_again_from_its_options(task):
    again = Regress(**json.loads(json.dumps(task.options)))
    assert (again.mean, again.scale) == (task.mean, task.scale)
    assert task.mean == pytest.approx(np.nanmean(VALUES))
    assert task.scale == pytest.approx(np.nanstd(VALUES))


def test_targets_are_standardised_by_the_training_rows(task):
    targets = task.targets(FACTS)
    assert targets.known.tolist() == [True, True, False, True, True]
    assert targets.values[targets.known].mean() == pytest.approx(0, abs=1e-6)
    other = task.targets({"target": Fact("number", np.array([task.mean], np.float32))})
    assert other.values.item() == pytest.approx(0, abs=1e-6)
    values, known = task.responses(targets)
    assert values.shape == known.shape == (5, 1) and values[2] == 0


def test_scores_are_decoded_into_units_of_the_target(task):
    targets = task.targets(FACTS)
    given = targets.values[:, None]
    found = task.decode(given)["prediction"]
    assert np.allclose(found[targets.known], VALUES[targets.known], rtol=1e-5)
    assert task.metrics(given, targets)["r2"] == pytest.approx(1)


def test_metrics_are_in_units_of_the_target(task):
    given, targets = torch.randn(5, 1), task.targets(FACTS)
    known = targets.known.numpy()
    error = task.decode(given)["prediction"][known] - VALUES[known]
    metrics = task.metrics(given, targets)
    assert set(metrics) == {"r2", "rmse", "mae", "spearman"}
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert metrics["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    expected = 1 - np.mean(error**2) / np.nanvar(VALUES)  # near zero by cancellation, at times
    assert metrics["r2"] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    rows = task.per_row(given, targets)
    assert 1 + rows[targets.known].mean().item() == pytest.approx(metrics["r2"], rel=1e-5, abs=1e-6)
    assert task.score(given, targets) == pytest.approx(metrics["r2"])


def test_the_loss_is_half_the_squared_error_of_known_rows(task):
    targets = task.targets(FACTS)
    given = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    known = targets.known
    wanted = (given[known, 0] - targets.values[known]).square().mean() / 2
    assert torch.allclose(task.loss(given, targets), wanted)
    assert torch.autograd.gradcheck(lambda s: task.loss(s, targets), given)


def test_the_baseline_is_the_mean(task):
    assert task.baseline(task.targets(FACTS)).tolist() == pytest.approx([0], abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3, 3, np.nan], "3 in all 2 training rows"),
        ([1, np.inf, 2], "infinite in 1 rows, first in row 2"),
        ([np.nan, np.nan], "missing in all 2"),
    ],
)
def test_a_target_that_can_not_be_learnt_is_an_error_with_a_remedy(values, message):
    with pytest.raises(DataError, match=message) as caught:
        Regress.learn({"target": Fact("number", np.array(values, np.float32))})
    assert caught.value.hint


def test_classes_are_no_numbers():
    with pytest.raises(DataError, match="classes; this task needs numbers"):
        Regress.learn({"target": Fact("class", np.array([0, 1]), ("a", "b"))})
