"""Calibration: scores that are made honest on rows that the fit hasn't seen."""

import json

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.prediction import Calibration, Targets
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress

TASK = Classify(classes=["a", "b", "c"])


def drawn(rows=4000, shift=(0.0, 0.0, 0.0), number=0):
    """Logits, and targets drawn from what they say once `shift` is added."""
    draw = torch.Generator().manual_seed(number)
    logits = 2 * torch.randn(rows, 3, generator=draw)
    chosen = torch.multinomial((logits + torch.tensor(shift)).softmax(1), 1, generator=draw)
    return logits, Targets(chosen[:, 0], torch.ones(rows, dtype=torch.bool))


@pytest.mark.parametrize("factor", [0.05, 1.0, 7.0])
def test_calibration_finds_the_scale_that_was_lost(factor):
    logits, targets = drawn()
    found = TASK.calibrate(factor * logits, targets)
    assert found.scale * factor == pytest.approx(1, rel=0.06)
    assert found.temperature == pytest.approx(1 / found.scale)
    assert TASK.metrics(found(factor * logits), targets)["ece"] < 0.02


def test_calibration_finds_offsets():
    logits, targets = drawn(shift=(1.0, 0.0, -1.0))
    offsets = np.array(TASK.calibrate(logits, targets).offsets)
    assert np.allclose(offsets - offsets.mean(), [1, 0, -1], atol=0.15)


def test_it_is_where_the_loss_is_lowest():
    logits, targets = drawn(300)
    found = TASK.calibrate(logits, targets)
    lowest = TASK.loss(found(logits.double()), targets)
    for scale, moved in ((0.9, 0.0), (1.1, 0.0), (1.0, 0.2), (1.0, -0.2)):
        offsets = (found.offsets[0] + moved, *found.offsets[1:])
        other = Calibration(found.scale * scale, offsets)
        assert TASK.loss(other(logits.double()), targets) > lowest


def test_it_does_not_move_what_is_predicted_by_scale_alone_and_is_deterministic():
    logits, targets = drawn(200)
    first, second = (TASK.calibrate(logits, targets) for _ in range(2))
    assert first == second
    assert Calibration.of(json.loads(json.dumps(first.as_dict()))) == first


def test_separable_classes_have_a_finite_scale():
    logits = torch.eye(3).repeat(20, 1) * 5
    targets = Targets(torch.arange(3).repeat(20), torch.ones(60, dtype=torch.bool))
    found = TASK.calibrate(logits, targets)
    assert 0 < found.scale < 100 and np.isfinite(found.offsets).all()


def test_constant_scores_and_no_known_rows_have_a_calibration():
    targets = Targets(torch.arange(3).repeat(20), torch.ones(60, dtype=torch.bool))
    found = TASK.calibrate(torch.zeros(60, 3), targets)
    assert torch.isfinite(found(torch.zeros(60, 3))).all()
    none = Targets(targets.values, torch.zeros(60, dtype=torch.bool))
    assert TASK.calibrate(torch.zeros(60, 3), none) == Calibration()


def test_numbers_are_left_as_they_are():
    facts = {"target": Fact("number", np.arange(5, dtype=np.float32))}
    task = Regress.learn(facts)
    given = torch.randn(5, 1)
    assert torch.equal(task.calibrate(given, task.targets(facts))(given), given)
