"""A class for each pixel of a mask."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fusemix_core import testing
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.tasks.choose import choose_task
from fusemix_core.tasks.segment import Segment

NAN = np.nan
MASKS = np.array(
    [[[0, 7], [0, 0]], [[0, 255], [7, 7]], [[NAN, 7], [255, 0]], [[NAN, NAN], [NAN, NAN]]],
    np.float32,
)
FACTS = {"target": Fact("grid", MASKS)}
NAMES = ["none", "heart", "lung"]


@pytest.fixture
def task():
    return Segment.learn(FACTS, classes=NAMES)


def scores(rows=4, outputs=12):
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(1)).double()


def certain(classes):
    """Scores by which each pixel has the class of `[n, 2, 2]`."""
    found = torch.as_tensor(classes)
    return 9.0 * torch.stack([found == k for k in range(3)], dim=1).flatten(1)


@pytest.mark.slow
def test_it_conforms():
    draw = np.random.default_rng(0)
    masks = np.zeros((30, 4, 4), np.float32)
    for mask, (i, j) in zip(masks, draw.integers(0, 3, (30, 2)), strict=True):
        mask[i : i + 2, j : j + 2] = draw.integers(1, 3)
    masks[3], masks[5, :2] = NAN, NAN
    testing.check_task("segment", facts={"target": Fact("grid", masks)}).raise_if_failed()


def test_the_task_is_built_again_from_its_options(task):
    again = Segment(**json.loads(json.dumps(task.options)))
    assert again.values == (0, 7, 255) and again.classes == ("none", "heart", "lung")
    assert again.map_shape == (3, 2, 2) and again.outputs == 12


def test_the_loss_is_cross_entropy_and_dice_of_classes_but_the_first(task):
    given, targets = scores(), task.targets(FACTS)
    wanted = []
    for x, mask in zip(given.unflatten(1, (3, 4)), MASKS.reshape(4, 4), strict=True):
        known = torch.from_numpy(~np.isnan(mask))
        if not known.any():
            continue
        truth = torch.from_numpy(np.searchsorted([0, 7, 255], np.nan_to_num(mask)))[known]
        loss, p = cross_entropy(x[:, known].T, truth), x.softmax(dim=0)[:, known]
        for k in (1, 2):
            y = (truth == k).double()
            dice = (2 * (p[k] * y).sum() + 1) / (p[k].sum() + y.sum() + 1)
            loss = loss + (1 - dice) / 2
        wanted.append(loss)
    assert task.loss(given, targets).item() == pytest.approx(torch.stack(wanted).mean().item())


def test_intersection_over_union_is_that_of_all_rows_together(task):
    found = certain([[[0, 1], [0, 1]], [[0, 2], [1, 1]], [[2, 0], [2, 0]], [[2, 2], [2, 2]]])
    metrics = task.metrics(found, task.targets(FACTS))
    ious = [4 / 6, 3 / 5, 2 / 2]
    assert [metrics[f"iou_{name}"] for name in NAMES] == pytest.approx(ious)
    assert metrics["miou"] == pytest.approx(np.mean(ious))
    assert metrics["dice"] == pytest.approx(np.mean([6 / 8, 1.0]))
    assert metrics["accuracy"] == pytest.approx(9 / 11)


def test_a_value_may_mean_that_a_pixel_is_not_known():
    task = Segment.learn(FACTS, ignored=255)
    assert task.classes == ("0", "7")
    assert task.targets(FACTS).known.sum() == 2 * 9


def test_options_may_be_text_as_on_the_command_line():
    assert Segment.learn(FACTS, ignored="255").values == (0.0, 7.0)
    assert Segment.learn(FACTS, values="0,7").values == (0.0, 7.0)
    for wrong, message in (({"values": "0,x"}, "not a number"), ({"values": [7, 7]}, "twice")):
        with pytest.raises(ConfigError, match=message):
            Segment.learn(FACTS, **wrong)


def test_decoded_are_the_classes_that_are_there_and_their_shares(task):
    table = task.decode(certain([[[0, 1], [0, 1]], [[0, 0], [0, 0]]]))
    assert table["prediction"] == ["heart", ""]
    assert table["share_heart"].tolist() == [0.5, 0.0]


def test_masks_of_one_value_or_of_other_kinds_are_refused():
    same = {"target": Fact("grid", np.zeros((3, 2, 2), np.float32))}
    with pytest.raises(DataError, match="training masks are 0") as error:
        Segment.learn(same)
    assert "COLUMN:mask" in error.value.hint
    with pytest.raises(DataError, match="kind 'number'"):
        Segment.learn({"target": Fact("number", np.arange(3, dtype=np.float32))})
    noisy = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    with pytest.raises(DataError, match="100 different values") as error:
        Segment.learn({"target": Fact("grid", noisy)})
    assert "PNG" in error.value.hint
    with pytest.raises(ConfigError, match="2 names of classes"):
        Segment.learn(FACTS, classes=["a", "b"])


def test_auto_tells_masks_from_maps_of_yes_and_no():
    assert choose_task(FACTS)[0] == "segment"
    assert choose_task({"target": Fact("grid", (MASKS > 0).astype(np.float32))})[0] == "occupy"
