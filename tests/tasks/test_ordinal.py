"""Ordered classes."""

import json

import numpy as np
import pytest
import torch
from metrics import naive

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError, UnknownNameError
from fusemix_core.tasks.ordinal import Ordinal

FACTS = {"target": Fact("number", np.array([1, 2, 10, np.nan, 2, 1], np.float32))}


@pytest.fixture
def task():
    return Ordinal.learn(FACTS)


def test_numbers_have_their_own_order_and_the_task_is_built_again(task):
    assert Ordinal.learn(FACTS, order=[10, 2, 1.0]).order == ("10", "2", "1")
    again = Ordinal(**json.loads(json.dumps(task.options)))
    assert again.order == ("1", "2", "10") and again.names == ("above_1", "above_2")
    targets = again.targets(FACTS)
    assert targets.values[targets.known].tolist() == [0, 1, 2, 1, 0]
    assert again.unseen({"target": Fact("number", np.array([3, 3], np.float32))}) == {"3": 2}


def test_names_need_an_order():
    facts = {"target": Fact("class", np.array([0, 1, 2]), ("high", "low", "middle"))}
    with pytest.raises(ConfigError, match="no order of their own") as caught:
        Ordinal.learn(facts)
    assert "--task 'ordinal order=high,low,middle'" in caught.value.hint
    task = Ordinal.learn(facts, order=["low", "middle", "high"])
    assert task.targets(facts).values.tolist() == [2, 0, 1]
    assert Ordinal.learn(facts, order="low, middle,high").order == task.order
    with pytest.raises(UnknownNameError, match="'middle'"):
        Ordinal.learn(facts, order=["low", "high"])


def test_the_loss_asks_whether_a_row_is_above_each_class(task):
    targets = task.targets(FACTS)
    given = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    above = np.array([[0, 0], [1, 0], [1, 1], [0, 0], [1, 0], [0, 0]])
    p = given.detach().sigmoid().numpy()
    each = -(above * np.log(p) + (1 - above) * np.log(1 - p)).mean(axis=1)
    known = targets.known.numpy()
    assert task.loss(given, targets).item() == pytest.approx(each[known].mean())
    assert torch.autograd.gradcheck(lambda s: task.loss(s, targets), given)
    values, _ = task.responses(targets)
    assert values.tolist() == (2 * above - 1 - (2 * above - 1) * ~known[:, None]).tolist()


def test_probabilities_are_of_classes_also_if_scores_are_out_of_order(task):
    given = torch.tensor([[2.0, -1.0], [-1.0, 2.0]])
    found = task.probabilities(given)
    assert torch.allclose(found.sum(1), torch.ones(2)) and (found >= 0).all()
    high, low = torch.tensor([2.0, -1.0]).sigmoid().tolist()
    assert found[0].tolist() == pytest.approx([1 - high, high - low, low])
    assert task.decode(given)["prediction"] == ["2", "1"]
    assert task.decode(given)["probability_10"] == pytest.approx([low, low])


def test_metrics_measure_the_distance_of_the_median_class(task):
    targets = task.targets(FACTS)
    given = torch.tensor([[-1.0, -2], [1, 1], [1, 1], [0, 0], [-1, -1], [-2, -3]])
    found, truth = np.array([0, 2, 2, 0, 0]), np.array([0, 1, 2, 1, 0])
    metrics = task.metrics(given, targets)
    assert metrics["kappa"] == pytest.approx(naive.kappa(truth, found, 3))
    assert metrics["mae"] == pytest.approx(0.4) and metrics["accuracy"] == pytest.approx(0.6)
    assert task.score(given, targets) == metrics["kappa"]
    known = targets.known.numpy()
    confidence = task.probabilities(given.double()).numpy()[np.flatnonzero(known), found]
    assert metrics["ece"] == pytest.approx(naive.ece(confidence, found == truth))


def test_the_baseline_is_the_share_above_each_class(task):
    assert task.baseline(task.targets(FACTS)).sigmoid().tolist() == pytest.approx([4 / 7, 2 / 7])


def test_classes_of_one_row_are_noted_and_one_class_is_an_error(task):
    assert "'10' has a single training row" in task.notes(FACTS)[0]
    with pytest.raises(DataError, match="'1' in all 2"):
        Ordinal.learn({"target": Fact("number", np.ones(2, np.float32))})
