"""Conformal sets and intervals: as often right as they say, whatever the model."""

import json
import math

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError
from fusemix_core.prediction import Targets
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.conformal import Conformal, finite_quantile
from fusemix_core.tasks.multilabel import Multilabel
from fusemix_core.tasks.regress import Regress

TASK = Classify(classes=["a", "b", "c", "d"])


def classes(rows, number=0):
    """Scores that are far too sure of themselves, and targets."""
    draw = torch.Generator().manual_seed(number)
    logits = torch.randn(rows, 4, generator=draw)
    chosen = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    return 5 * logits, Targets(chosen, torch.ones(rows, dtype=torch.bool))


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_contain_the_true_class_as_often_as_asked(method, coverage):
    fitted = Conformal.fit(TASK, *classes(10_000), coverage, method)
    found = fitted.measured(TASK, *classes(10_000, number=1))
    assert found["coverage"] == pytest.approx(coverage, abs=0.02)
    assert 1 < found["size"] < 4


def test_sets_of_lac_are_the_smallest():
    sizes = [
        Conformal.fit(TASK, *classes(4000), 0.9, m).measured(TASK, *classes(2000, 1))["size"]
        for m in ("lac", "aps")
    ]
    assert sizes[0] < sizes[1]


def test_the_set_is_that_of_classes_as_likely_as_the_calibration_rows():
    scores = torch.tensor([[3.0, 2, 1, 0]]).repeat(9, 1)
    targets = Targets(torch.tensor([0] * 7 + [1, 2]), torch.ones(9, dtype=torch.bool))
    fitted = Conformal.fit(TASK, scores, targets, 0.8)
    assert fitted.sets(TASK, scores[:1]).tolist() == [[True, True, False, False]]
    aps = Conformal.fit(TASK, scores, targets, 0.8, "aps")
    p = scores[0].double().softmax(0)
    assert aps.threshold == pytest.approx(float(p[0] + p[1]))


def test_intervals_contain_the_true_value_as_often_as_asked():
    draw = np.random.default_rng(0)
    value = draw.normal(50, 10, 4000)
    facts = {"target": Fact("number", value.astype(np.float32))}
    task = Regress.learn(facts)
    targets = task.targets(facts)
    scores = targets.values[:, None] + torch.from_numpy(draw.standard_t(3, (4000, 1)))
    fitted = Conformal.fit(task, scores[:2000], targets[:2000])
    found = fitted.measured(task, scores[2000:], targets[2000:])
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    low, high = fitted.intervals(task, scores).T
    assert np.allclose((high - low).numpy(), found["width"])
    assert np.allclose(((high + low) / 2).numpy(), task.decode(scores)["prediction"])


def test_the_quantile_counts_the_row_to_come():
    values = np.arange(1.0, 10.0)  # of 9 rows
    assert finite_quantile(values, 0.9) == 9 and finite_quantile(values, 0.8) == 8
    assert finite_quantile(values, 0.91) == math.inf
    assert finite_quantile(np.arange(1.0, 20.0)[::-1], 0.9) == 18


def test_too_few_rows_give_all_classes_and_survive_json():
    fitted = Conformal.fit(TASK, *classes(5), 0.9)
    again = Conformal.of(json.loads(json.dumps(fitted.as_dict(), allow_nan=False)))
    assert again == fitted and again.rows == 5
    assert again.sets(TASK, classes(3)[0]).all()


def test_it_says_what_a_task_has_not():
    assert Conformal.fit(Multilabel(labels=["a"]), *classes(5)) is None
    with pytest.raises(ConfigError, match="no conformal method 'residual'"):
        Conformal.fit(TASK, *classes(5), method="residual")
    with pytest.raises(ConfigError, match="coverage is 90"):
        Conformal.fit(TASK, *classes(5), 90)
