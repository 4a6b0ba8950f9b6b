"""Paired intervals of any metric, rows drawn by groups."""

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.evaluation.differences import difference, metric_interval, resampled
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress
from fusemix_core.tasks.survive import Survive

ROWS = 200
TASK = Classify(classes=["a", "b", "c"])


def noisy(values, noise, number=0):
    """Scores `[n, 1]` that are the values with noise."""
    draw = np.random.default_rng(number)
    return torch.from_numpy(values + noise * draw.normal(size=len(values)))[:, None]


@pytest.fixture
def classes():
    """(targets, good scores, poor scores)."""
    truth = np.random.default_rng(1).integers(0, 3, ROWS)
    targets = TASK.targets({"target": Fact("class", truth, ("a", "b", "c"))})
    draw = torch.Generator().manual_seed(0)
    hot = torch.eye(3)[truth]
    noise = torch.randn(2, ROWS, 3, generator=draw)
    return targets, hot + 0.5 * noise[0], hot + 1.5 * noise[1]


def naive(measure, first, second, groups, resamples, seed):
    """Groups drawn one by one as `draw_kinds` counts them."""
    names = np.unique(groups)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    values = []
    for counts in drawn:
        times = zip(names, counts, strict=True)
        drawn_groups = [name for name, count in times for _ in range(count)]
        rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn_groups])
        values.append(measure(first, rows) - measure(second, rows))
    return interval(np.array(values))


def test_means_over_rows_are_resampled_by_groups(classes):
    targets, good, poor = classes
    groups = np.random.default_rng(2).integers(0, 40, ROWS)
    found = difference(TASK, good, poor, targets, groups, resamples=60, seed=3)

    def hits(scores, rows):
        return (scores.argmax(1) == targets.values).double().numpy()[rows].mean()

    assert found.interval == pytest.approx(naive(hits, good, poor, groups, 60, 3))
    assert found.value == pytest.approx(hits(good, slice(None)) - hits(poor, slice(None)))
    assert found.better and not found.worse


def test_other_metrics_are_measured_anew_on_each_sample(classes):
    targets, good, poor = classes
    groups = np.arange(ROWS) // 2
    found = difference(
        TASK, good, poor, targets, groups,
        metric="log_loss", greater_is_better=False, resamples=30, seed=1,
    )  # fmt: skip

    def loss(scores, rows):
        return -TASK.loss(scores[rows].double(), targets[rows]).item()

    assert found.interval == pytest.approx(naive(loss, good, poor, groups, 30, 1))
    assert found.first < found.second and found.value > 0


def test_r2_is_that_of_each_sample():
    draw = np.random.default_rng(7)
    values = draw.normal(size=ROWS)
    facts = {"target": Fact("number", values.astype(np.float32))}
    task = Regress.learn({"target": facts["target"].select(np.arange(50))})
    targets = task.targets(facts)
    good, poor = noisy(values, 0.3), noisy(values, 1.0, 1)
    found = difference(task, good, poor, targets, resamples=30)

    def r2(scores, rows):
        return task.metrics(scores[rows], targets[rows])["r2"]

    assert found.interval == pytest.approx(naive(r2, good, poor, np.arange(ROWS), 30, 0))
    assert found.better


def test_concordance_is_that_of_each_sample():
    draw = np.random.default_rng(7)
    risk = draw.normal(size=ROWS)
    time = draw.exponential(np.exp(-risk)).astype(np.float32)
    event = (draw.random(ROWS) < 0.7).astype(np.float32)
    facts = {"time": Fact("number", time), "event": Fact("number", event)}
    task = Survive.learn(facts)
    targets = task.targets(facts)
    found = difference(task, noisy(risk, 0.1), noisy(risk, 3.0), targets, resamples=50)
    assert found.better and 0 < found.interval[0] < found.value < found.interval[1]


def test_the_same_model_does_not_differ_and_the_weaker_is_worse(classes):
    targets, good, poor = classes
    same = difference(TASK, good, good, targets, resamples=50)
    assert same.value == 0 and same.interval == [0, 0] and not same.better and not same.worse
    assert difference(TASK, poor, good, targets, resamples=50).worse


def test_rows_that_are_not_known_have_no_part(classes):
    targets, good, poor = classes
    targets.known[::3] = False
    known = targets.known
    found = difference(TASK, good, poor, targets, resamples=50)
    other = difference(TASK, good[known], poor[known], targets[known], resamples=50)
    assert found == other


def test_it_is_deterministic_and_groups_widen_it(classes):
    targets, good, _ = classes
    first, second = (metric_interval(TASK, good, targets, resamples=200) for _ in range(2))
    assert first == second
    doubled = (
        torch.cat([good] * 4),
        type(targets)(targets.values.repeat(4), targets.known.repeat(4)),
    )
    alone = metric_interval(TASK, *doubled, resamples=200)
    grouped = metric_interval(TASK, *doubled, np.tile(np.arange(ROWS), 4), resamples=200)
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_one_group_has_no_interval(classes):
    targets, good, poor = classes
    found = difference(TASK, good, poor, targets, np.zeros(ROWS, int))
    assert found.interval is None and not found.better and found.as_dict()["interval"] is None
    assert metric_interval(TASK, good[:1], targets[:1]) is None


@pytest.mark.parametrize(("classes", "expected"), [([0, 1] * 4, [1, 1]), ([0, 1, 1], None)])
def test_samples_without_a_class_are_left_out_and_many_leave_no_interval(classes, expected):
    task = Classify(classes=["a", "b"])
    targets = task.targets({"target": Fact("class", np.array(classes), ("a", "b"))})
    scores = torch.eye(2)[classes]
    _, drawn = resampled(task, [scores], targets, metric="auc", resamples=1000)
    assert 0 < np.isnan(drawn).mean() < 0.05 or expected is None
    assert metric_interval(task, scores, targets, metric="auc") == expected
