"""Boxes in images."""

import numpy as np
import pytest
import torch

from fusemix_core.boxes import giou, iou
from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.fusers.attention import AttentionFuser
from fusemix_core.padded import Padded
from fusemix_core.runs.fusing import target_facts
from fusemix_core.tasks.box import Box, box_metrics
from fusemix_core.testing.tasks import check_task

NAN = [np.nan] * 4
CORNERS = [[0.1, 0.2, 0.5, 0.6], NAN, [0.0, 0.0, 0.0, 0.0], [0.4, 0.0, 1.0, 0.5]]


def boxes(values):
    return {"target": Fact("box", np.array(values, np.float32))}


def naive_iou(a, b):
    """By counting the cells of a fine grid."""
    at = (torch.arange(1000).double() + 0.5) / 1000
    inside = [
        (at[:, None] > y - h / 2) & (at[:, None] < y + h / 2)
        & (at > x - w / 2) & (at < x + w / 2)
        for x, y, w, h in (a.tolist(), b.tolist())
    ]  # fmt: skip
    return float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())


def test_the_kit_finds_no_fault():
    check_task("box").raise_if_failed()


def test_the_overlap_is_that_of_the_cells_of_a_grid():
    draw = torch.Generator().manual_seed(0)
    a, b = (0.3 + 0.3 * torch.rand(5, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    wanted = [naive_iou(x, y) for x, y in zip(a, b, strict=True)]
    assert iou(a, b).tolist() == pytest.approx(wanted, abs=3e-3)


def test_boxes_apart_have_a_negative_giou():
    a, b = (torch.tensor([[x, 0.5, 0.2, 1.0]]) for x in (0.1, 0.9))
    assert giou(a, b).item() == pytest.approx(-0.6)  # 0.6 of the box around both is neither
    empty = torch.zeros(1, 4, requires_grad=True)
    giou(empty, torch.zeros(1, 4)).sum().backward()
    assert empty.grad.isfinite().all()


def test_of_rows_without_a_box_the_primary_metric_is_undefined():
    task = Box()
    targets = task.targets(boxes([CORNERS[0], [0.0] * 4]))
    scores = torch.tensor([[0.3, 0.4, 0.4, 0.4]]).logit().expand(2, 4)
    assert task.metrics(scores[1:], targets[1:])["iou_boxes"] is None
    assert np.isnan(task.score(scores[1:], targets[1:]))
    drawn = task.resampled(scores, targets, np.array([[1, 1], [2, 0], [0, 2]]))
    assert drawn == pytest.approx([1, 1, np.nan], nan_ok=True)


def test_targets_are_centre_and_size_and_an_empty_cell_is_not_known():
    targets = Box.learn(boxes(CORNERS)).targets(boxes(CORNERS))
    assert targets.known.tolist() == [True, False, True, True]
    assert targets.values[0].tolist() == pytest.approx([0.3, 0.4, 0.4, 0.4])
    assert targets.values[2].tolist() == [0, 0, 0, 0]


def test_the_loss_is_l1_and_giou():
    task = Box.learn(boxes(CORNERS), l1=2.0)
    targets = task.targets(boxes(CORNERS))
    scores = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    known = targets.known
    predicted, wanted = scores.sigmoid()[known], targets.values[known].double()
    each = 2 * (predicted - wanted).abs().sum(dim=1) + 1 - giou(predicted, wanted)
    assert task.loss(scores, targets).item() == pytest.approx(each.mean().item())


def test_rows_without_a_box_count_as_the_paper_counts_them():
    wanted = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.0] * 4, [0.0] * 4]).double()
    predicted = torch.tensor([[0.5, 0.5, 0.4, 0.2], [1e-5] * 4, [0.1] * 4]).double()
    found = box_metrics(predicted, wanted)
    assert found["iou"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["iou_boxes"] == pytest.approx(0.5)
    assert found["iou50_boxes"] == 0 and found["iou50"] == pytest.approx(1 / 3)


def test_a_prediction_reads_as_a_box():
    task = Box()
    scores = torch.tensor([[0.5, 0.25, 0.5, 0.5]]).logit()
    assert task.decode(scores)["prediction"] == ["0.25,0,0.75,0.5"]


def test_boxes_in_pixels_are_an_error_that_says_what_to_do():
    with pytest.raises(DataError, match=r"reach beyond 0 to 1, first in row 2") as caught:
        Box.learn(boxes([CORNERS[0], [3, 4, 50, 60]]))
    assert "Divide" in caught.value.hint
    with pytest.raises(DataError, match=r"end before they begin, first in row 2") as caught:
        Box.learn(boxes([CORNERS[0], [0.5, 0.5, 0.2, 0.2]]))
    assert "xywh" in caught.value.hint
    with pytest.raises(DataError, match="no box with an area"):
        Box.learn(boxes([[0, 0, 0, 0]] * 3))
    with pytest.raises(DataError, match="not boxes"):
        Box.learn({"target": Fact("number", np.ones(3, np.float32))})


def test_the_column_is_read_as_boxes_unless_the_user_says_otherwise():
    assert target_facts(("lesion",), task="box")[0] == {"target": "lesion:box"}
    assert target_facts(("lesion:xywh",), task="box")[0] == {"target": "lesion:xywh"}


def test_attention_knows_where_a_token_is_if_places_matter():
    options = AttentionFuser.suited(Box())
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    present = torch.ones(3, 1, dtype=torch.bool)
    moved = []
    for own in (options, {}):
        torch.manual_seed(0)
        fuser = AttentionFuser({"image": 5}, 4, width=8, heads=2, **own).eval()
        fuser.standards[0].learn(values.flatten(0, 1))
        first, second = (
            fuser({"image": Padded(x, torch.ones(3, 4, dtype=torch.bool))}, present)
            for x in (values, values.flip(1))
        )
        moved.append((first - second).abs().max().item())
    assert moved[0] > 1e-3 and moved[1] < 1e-5
