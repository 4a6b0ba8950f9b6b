"""Cells of grids, in two stages."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fusemix_core import testing
from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.tasks.choose import choose_task
from fusemix_core.tasks.occupy import Occupy

NAN = np.nan
MAPS = np.array(
    [
        [[0, 1, 0], [0, 0, 0]],
        [[0, 0, NAN], [1, 1, NAN]],
        [[0, 0, NAN], [0, 0, 1]],
        np.full((2, 3), NAN),
    ],
    np.float32,
)
FACTS = {"target": Fact("grid", MAPS)}


@pytest.fixture
def task():
    return Occupy.learn(FACTS)


def scores(rows=4, outputs=8):
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.slow
def test_it_conforms():
    draw = np.random.default_rng(0)
    maps = (draw.random((30, 3, 3)) < 0.4).astype(np.float32)
    maps[3], maps[5, :2] = NAN, NAN
    testing.check_task("occupy", facts={"target": Fact("grid", maps)}).raise_if_failed()


def test_a_coarse_cell_is_occupied_if_one_of_its_cells_is_and_unknown_if_it_may_be(task):
    targets = task.targets(FACTS)
    assert targets.values[:, 6:].tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]
    assert targets.known[:, 6:].tolist() == [[True] * 2, [True, False], [True] * 2, [False] * 2]
    assert torch.equal(targets.known[:, :6], torch.from_numpy(~np.isnan(MAPS)).flatten(1))


def test_the_loss_by_the_definition(task):
    given, targets = scores(), task.targets(FACTS)
    wanted = 0.0
    for weight, own in ((1.0, slice(0, 6)), (0.5, slice(6, 8))):
        rows = []
        for x, y, known in zip(given, targets.values.double(), targets.known, strict=True):
            x, y = x[own][known[own]], y[own][known[own]]
            if len(x):
                p = x.sigmoid()
                dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
                rows.append(binary_cross_entropy_with_logits(x, y) + dice)
        wanted = wanted + weight * torch.stack(rows).mean()
    torch.testing.assert_close(task.loss(given, targets), wanted)


def test_metrics_are_of_the_known_fine_cells_of_all_rows(task):
    targets = task.targets(FACTS)
    given = -torch.ones(4, 8)
    given[0, 1], given[0, 2], given[1, 3], given[3, 0], given[:, 6:] = 2, 2, 2, 2, 5
    found = task.metrics(given, targets)
    assert found["iou"] == task.score(given, targets) == pytest.approx(2 / 5)
    assert found["dice"] == pytest.approx(4 / 7)
    assert (found["precision"], found["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 4))
    empty = task.targets({"target": Fact("grid", np.zeros((2, 2, 3), np.float32))})
    assert task.metrics(-torch.ones(2, 8), empty)["iou"] is None
    assert math.isnan(task.score(-torch.ones(2, 8), empty))


def test_one_scale_and_one_offset_per_stage(task):
    found = task.calibrate(scores(), task.targets(FACTS))
    assert len(found.offsets) == 8 and len(set(found.offsets)) == 2
    assert len(set(found.offsets[:6])) == 1


def test_predictions_are_maps(task):
    given = -torch.ones(1, 8)
    given[0, [1, 5]] = 1.0
    table = task.decode(given)
    assert table["prediction"] == ["010/001"] and table["occupied"].tolist() == [1 / 3]
    assert task.probabilities(given).shape == (1, 2, 3)


def test_one_stage_and_built_again():
    task = Occupy.learn(FACTS, coarse=0.0)
    again = Occupy(**json.loads(json.dumps(task.options)))
    assert again.outputs == 6 and again.names[0] == "0,0"
    assert Occupy.learn(FACTS).names[6:] == ("coarse 0,0", "coarse 0,1")


def test_a_grid_is_a_map_to_predict():
    assert choose_task(FACTS)[0] == "occupy"


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        (Fact("grid", np.array([[[0.0, 2.0]]], np.float32)), "the value 2"),
        (Fact("grid", np.zeros((3, 2, 2), np.float32)), "nothing to predict"),
        (Fact("number", np.zeros(3, np.float32)), "isn't a grid"),
    ],
)
def test_targets_that_are_no_maps_are_refused(fact, message):
    with pytest.raises(DataError, match=message):
        Occupy.learn({"target": fact})


@pytest.mark.parametrize("value", [255.0, 0.5, np.inf])
def test_rows_that_are_measured_have_cells_of_0_and_1_as_well(task, value):
    with pytest.raises(DataError, match=f"the value {value:g}"):
        task.targets({"target": Fact("grid", np.full((1, 2, 3), value, np.float32))})


def test_maps_of_another_shape_are_refused(task):
    with pytest.raises(DataError, match="learnt"):
        task.targets({"target": Fact("grid", np.zeros((1, 2, 2), np.float32))})
