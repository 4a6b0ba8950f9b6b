"""The task `manipulation` and the fuser `hammer`."""

import json

import numpy as np
import pytest
import torch
from fusemix_hammer.fuser import HammerFuser
from fusemix_hammer.heads import head_losses
from fusemix_hammer.measures import detection, equal_error_rate, labelling
from fusemix_hammer.task import Manipulation

from fusemix_core.boxes import of_corners
from fusemix_core.context import FitContext
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import PairedLatents
from fusemix_core.paired import ResidentTokens
from fusemix_core.testing import check_fuser
from fusemix_core.testing.tasks import check_task

TYPES = ("real", "image_splice", "text_attribute", "image_splice;text_attribute", "text_swap")
SMALL = {"width": 16, "heads": 2, "depth": 1}


def facts_of(count, seed=0, gone=()):
    """Rows of every type, with words and boxes that fit."""
    draw = np.random.default_rng(seed)
    types = np.arange(count) % len(TYPES)
    boxes = np.full((count, 4), np.nan, np.float32)
    cells = []
    for i, kind in enumerate(types):
        if "splice" in TYPES[kind]:
            left, top = draw.uniform(0, 0.5, 2)
            boxes[i] = left, top, left + 0.4, top + 0.4
        flags = ["0"] * 3
        if "attribute" in TYPES[kind]:
            flags[int(draw.integers(3))] = "1"
        cells.append(" ".join(flags))
    for row in gone:
        types[row] = -1
    return {
        "types": Fact("text", types, TYPES),
        "box": Fact("box", boxes),
        "words": Fact("text", np.where(types < 0, -1, np.arange(count)), tuple(cells)),
    }


@pytest.fixture(scope="module")
def facts():
    return facts_of(60)


@pytest.mark.slow
def test_the_kit_finds_no_fault_in_the_task():
    check_task("manipulation", facts=facts_of(60, gone=range(3, 60, 7))).raise_if_failed()


@pytest.mark.slow
def test_the_kit_finds_no_fault_in_the_fuser():
    options = {**SMALL, "training": {"epochs": 6, "lr": 5e-3}}
    check_fuser("hammer", options=options).raise_if_failed()


def test_the_task_learns_kinds_boxes_and_length(facts):
    task = Manipulation.learn(facts)
    assert task.kinds == ("image_splice", "text_attribute", "text_swap")
    assert task.boxed == ("image_splice",) and task.layout.length == 3
    assert task.outputs == task.layout.count == 2 + 3 + 4 + 2 * 3
    again = Manipulation(**json.loads(json.dumps(task.options)))
    assert again.names == task.names


def test_the_losses_are_those_of_the_heads(facts):
    task = Manipulation.learn(facts)
    targets = task.targets(facts)
    scores = torch.randn(60, task.outputs, dtype=torch.float64)
    given, true = task.layout.split(scores), task.layout.split(targets.values)
    wanted = head_losses(
        {
            "binary": given.binary,
            "multi": given.kinds,
            "box": given.box.sigmoid(),
            "token": given.words,
        },
        real=true.binary[:, 0] > 0,
        labels=true.kinds,
        boxes=true.box.double(),
        fake_words=true.words[:, :, 1],
        mask=torch.ones(60, 3),
    )
    found = task.losses(scores, targets)
    assert [one.item() for one in found.values()] == pytest.approx(
        [one.item() for one in wanted.values()]
    )
    total = task.loss(scores, targets).item()
    assert total == pytest.approx(
        sum(w * one.item() for w, one in zip((1, 1, 0.1, 0.1, 1), wanted.values(), strict=True))
    )


def test_a_row_without_a_box_has_the_box_of_zeros(facts):
    task = Manipulation.learn(facts)
    boxes = task.layout.split(task.targets(facts).values).box
    there = ~facts["box"].missing
    assert (boxes[~torch.from_numpy(there)] == 0).all()
    own = torch.from_numpy(facts["box"].values[there])
    torch.testing.assert_close(boxes[torch.from_numpy(there)], of_corners(own))


def test_the_equal_error_rate_is_where_both_errors_meet():
    margin, fake = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert equal_error_rate(margin, fake) == pytest.approx(0.5)
    assert equal_error_rate(-margin, fake) == pytest.approx(0.5)
    assert equal_error_rate(np.array([2.0, 1, -1, -2]), np.array([1, 1, 0, 0]) > 0) == 0
    draw = np.random.default_rng(0)
    margin, fake = draw.normal(size=4000), draw.random(4000) < 0.3
    margin += fake
    at = min(
        np.sort(margin), key=lambda t: abs((margin[~fake] >= t).mean() - (margin[fake] < t).mean())
    )
    assert equal_error_rate(margin, fake) == pytest.approx((margin[fake] < at).mean(), abs=2e-3)
    assert detection(margin, fake)["accuracy"] == pytest.approx(((margin > 0) == fake).mean())


def test_labels_are_measured_each_and_together():
    scores = np.array([[1.0, -1], [1, 1], [-1, 1], [-1, -1]])
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 0]]) > 0
    found = labelling(scores, labels)
    assert found["of1"] == pytest.approx(2 * 2 / (4 + 3))
    precision, recall = (0.5 + 0.5) / 2, (0.5 + 1) / 2
    assert found["cf1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["map"] == pytest.approx((((0.5 + 0.5) / 2) + 0.5) / 2)


def test_metrics_are_of_all_rows_and_of_those_with_something_to_find(facts):
    task = Manipulation.learn(facts)
    targets = task.targets(facts)
    scores = task.responses(targets)[0]
    found = task.metrics(scores, targets)
    assert found["auc"] == found["map"] == found["f1"] == found["f1_tagged"] == 1
    assert found["eer"] == 0 and found["auc_text_swap"] == 1
    share = float((~facts["box"].missing).mean())  # other rows count as missed: corners of 0.0005
    assert found["iou_boxes"] > 0.99 and found["iou"] == pytest.approx(share, abs=0.01)


def test_predictions_name_the_words_and_the_box(facts):
    task = Manipulation.learn(facts)
    scores = task.responses(task.targets(facts))[0]
    columns = task.described(task.decode(scores), {"text": ["one two three"] * 60})
    row = list(facts["types"].values).index(3)
    at = facts["words"].names[row].split().index("1")
    assert columns["prediction"][row] == "fake" and columns["types"][row] == TYPES[3]
    assert columns["words"][row] == ["one", "two", "three"][at]
    box = [float(x) for x in columns["box"][row].split(",")]
    assert box == pytest.approx(facts["box"].values[row].tolist(), abs=1e-2)
    real = list(facts["types"].values).index(0)
    assert columns["box"][real] == columns["words"][real] == columns["types"][real] == ""


def test_columns_of_another_form_are_an_error(facts):
    with pytest.raises(DataError, match="'box' of manipulations is missing") as caught:
        Manipulation.learn({"types": facts["types"]})
    assert "hammer-data" in caught.value.hint
    only = {**facts, "types": Fact("text", np.zeros(60, np.int64), ("real",))}
    with pytest.raises(DataError, match="No training row is fake"):
        Manipulation.learn(only)


def labelled(count=120):
    """Pairs whose latents say what was done: the first number of a word is large if it is false,
    that of the patches in the box too, and the second numbers of both sides agree if real."""
    facts, draw = facts_of(count), torch.Generator().manual_seed(0)
    task = Manipulation.learn(facts)
    true = task.layout.split(task.targets(facts).values)
    words = 0.3 * torch.randn(count, 3, 5, generator=draw)
    words[:, :, 0] += 2 * true.words[:, :, 1]
    patches = 0.3 * torch.randn(count, 4, 6, generator=draw)
    at = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    near = (at - true.box[:, None, :2]).abs().amax(dim=2) < 0.3
    patches[:, :, 0] += 2 * (near & (true.box[:, None, 2] > 0))
    topic = torch.randn(count, generator=draw).sign()
    swapped = true.kinds[:, task.kinds.index("text_swap")] > 0
    words[:, :, 1] += torch.where(swapped, -topic, topic)[:, None]
    patches[:, :, 1] += topic[:, None]
    lengths = torch.full((count,), 3)
    tables = {
        "image": ResidentTokens(patches.flatten(0, 1), torch.full((count,), 4)),
        "text": ResidentTokens(words.flatten(0, 1), lengths),
    }
    pairs = PairedLatents(tables, torch.arange(count)[:, None].repeat(1, 2))
    return Labelled(pairs, task.targets(facts), torch.arange(count)), task


def test_the_fuser_detects_types_and_finds_and_contrasts():
    rows, task = labelled()
    train, held = rows.select(torch.arange(80)), rows.select(torch.arange(80, 120))
    how = {**SMALL, "training": {"epochs": 20, "lr": 1e-2, "batch_size": 20, "patience": 0}}
    fuser = HammerFuser.fit(train, held, task, FitContext(), **how).fuser
    taken = held.as_taken_by(fuser)
    latents = {m: taken.latents(m) for m in taken.modalities}
    found = task.metrics(fuser(latents, held.present).detach(), held.targets)
    assert (
        found["auc"] > 0.8 and found["f1"] > 0.8 and found["iou_boxes"] > 0.2
    )  # a box at a corner: 0.1
    again = HammerFuser(fuser.inputs, fuser.outputs, **fuser.options)
    again.load_state_dict(fuser.state_dict())  # without the contrast, its copies and its queue
    with torch.no_grad():
        assert torch.equal(again.eval()(latents, held.present), fuser(latents, held.present))


@pytest.mark.parametrize("modality", ["image", "text"])
def test_one_modality_gives_scores_too(modality):
    rows, task = labelled(20)
    own = rows.only([modality])
    width = {"image": 6, "text": 5}[modality]
    fuser = HammerFuser({modality: width}, task.outputs, **SMALL, **HammerFuser.suited(task))
    latents = {modality: own.as_taken_by(fuser).latents(modality)}
    scores, _ = fuser.trained_on(latents, own.present, own.targets)
    assert scores.shape == (20, task.outputs) and scores.isfinite().all()


def test_the_contrast_pulls_real_pairs_only():
    rows, task = labelled(20)
    fuser = HammerFuser({"image": 6, "text": 5}, task.outputs, **SMALL, **HammerFuser.suited(task))
    taken = rows.as_taken_by(fuser)
    fuser.prepare(taken)
    latents = {m: taken.latents(m) for m in taken.modalities}
    fuser.objective.alpha = 0.0
    _, loss = fuser.train().trained_on(latents, rows.present, rows.targets)
    none = rows.targets.values.clone()
    none[:, 1] = 1.0
    fuser.prepare(taken)
    fuser.objective.alpha = 0.0
    targets = type(rows.targets)(none, rows.targets.known)
    _, fakes = fuser.trained_on(latents, rows.present, targets)
    assert loss > 0 and fakes < loss  # of fakes only the terms within each side are left


def test_options_out_of_range_are_an_error():
    with pytest.raises(ConfigError, match="heads=3"):
        HammerFuser({"image": 4}, 2, width=16, heads=3)
