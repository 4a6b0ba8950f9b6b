"""Labels of tokens."""

import json

import numpy as np
import pytest
import torch

from fusemix_core.context import FitContext
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.attention import AttentionFuser
from fusemix_core.interfaces import PairedLatents
from fusemix_core.paired import ResidentTokens
from fusemix_core.runs.fusing import target_facts
from fusemix_core.tasks.tag import Tag
from fusemix_core.testing.tasks import check_task

CELLS = ("0 0 1", "0 1", "0")


def tags(*cells):
    values = np.array([-1 if cell is None else k for k, cell in enumerate(cells)], np.int64)
    return {"target": Fact("text", values, tuple(cell or "" for cell in cells))}


@pytest.fixture
def task():
    return Tag.learn(tags(*CELLS, None))


def chosen(task, rows):
    """Scores that are sure of these labels."""
    place = {name: k for k, name in enumerate(task.labels)}
    scores = torch.zeros(len(rows), task.length, len(task.labels))
    for i, row in enumerate(rows):
        for k, label in enumerate(row.split()):
            scores[i, k, place[label]] = 5.0
    return scores.flatten(1)


def test_the_kit_finds_no_fault():
    check_task("tag").raise_if_failed()


def test_labels_and_length_are_those_of_the_training_rows(task):
    assert task.labels == ("0", "1") and task.length == 3 and task.outputs == 6
    assert task.labels[task.none] == "0"
    again = Tag(**json.loads(json.dumps(task.options)))
    assert again.names == task.names and again.none == task.none


def test_labels_may_be_text_or_numbers_as_on_the_command_line():
    for labels in ("1,0", [1, 0]):
        assert Tag.learn(tags(*CELLS), labels=labels, none=0).options["labels"] == ["1", "0"]
    with pytest.raises(ConfigError, match="length=-3"):
        Tag.learn(tags(*CELLS), length=-3)


def test_tokens_beyond_a_row_are_not_known(task):
    targets = task.targets(tags(*CELLS, None, "2 1"))
    known = targets.known.unflatten(1, (3, 2))[:, :, 0]
    assert known.tolist() == [
        [True] * 3, [True, True, False], [True, False, False], [False] * 3, [False, True, False]
    ]  # fmt: skip
    assert targets.values[0].tolist() == [1, 0, 1, 0, 0, 1]
    assert task.unseen(tags("2 1")) == {"2": 1}


def test_the_loss_is_the_mean_over_tokens(task):
    scores = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    each = []
    for row, cell in zip(scores.unflatten(1, (3, 2)), CELLS, strict=True):
        for token, label in zip(row, cell.split(), strict=False):
            each.append(-token.log_softmax(0)[int(label)].item())
    found = task.loss(scores, task.targets(tags(*CELLS))).item()
    assert found == pytest.approx(np.mean(each))


def test_precision_recall_and_f1_leave_out_the_label_for_nothing(task):
    targets = task.targets(tags(*CELLS))
    found = task.metrics(chosen(task, ["0 1 1", "0 0", "1"]), targets)
    assert found["precision"] == pytest.approx(1 / 3) and found["recall"] == pytest.approx(1 / 2)
    assert found["f1"] == pytest.approx(2 / 5)
    assert found["f1_tagged"] == pytest.approx(2 / 4)  # without the last row
    assert found["accuracy"] == pytest.approx(3 / 6)


def test_f1_is_defined_where_nothing_is_found(task):
    found = task.metrics(chosen(task, ["0 0 0", "0 0", "0"]), task.targets(tags(*CELLS)))
    assert found["precision"] is None and found["recall"] == found["f1"] == 0
    found = task.metrics(chosen(task, ["0 0 0"]), task.targets(tags("0 0 0")))
    assert found["f1"] is None and found["accuracy"] == 1


def test_f1_is_undefined_where_nothing_is_there_and_nothing_is_found(task):
    targets = task.targets(tags("0 1", "0 0"))
    scores = chosen(task, ["0 1", "0 0"])
    assert np.isnan(task.score(scores[1:], targets[1:]))
    drawn = task.resampled(scores, targets, np.array([[1, 1], [0, 2]]))
    assert drawn == pytest.approx([1, np.nan], nan_ok=True)


def test_words_are_those_with_a_label(task):
    columns = task.decode(chosen(task, ["0 1 1", "1"]))
    found = task.described(columns, {"text": ["a grey cat", "dog"]})
    assert found["prediction"] == ["0 1 1", "1"] and found["words"] == ["grey; cat", "dog"]
    several = Tag.learn(tags("O PER O", "LOC O O"))
    columns = several.decode(chosen(several, ["LOC O PER"]))
    assert several.described(columns, {"text": ["Rome met Bob"]})["words"] == [
        "Rome (LOC); Bob (PER)"
    ]


def test_labels_that_were_not_read_as_text_are_an_error():
    with pytest.raises(DataError, match="read as class") as caught:
        Tag.learn({"target": Fact("class", np.zeros(3, np.int64), ("0",))})
    assert "COLUMN:text" in caught.value.hint
    with pytest.raises(DataError, match="nothing to predict"):
        Tag.learn(tags("0 0", "0"))
    with pytest.raises(ConfigError, match="none of 0, 1"):
        Tag.learn(tags(*CELLS), none="O")


def test_the_column_is_read_as_text_unless_the_user_says_otherwise():
    assert target_facts(("words",), task="tag")[0] == {"target": "words:text"}


def rows_of(count, seed):
    """Texts of one to five tokens whose label is the sign of their first number."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (count,), generator=draw)
    values = torch.randn(int(lengths.sum()), 4, generator=draw)
    flags = (values[:, 0] > 0).int().split(lengths.tolist())
    cells = [" ".join(map(str, one.tolist())) for one in flags]
    return ResidentTokens(values, lengths), tags(*cells)


def test_attention_scores_the_tokens_themselves():
    table, facts = rows_of(160, 0)
    task = Tag.learn(facts)
    links = torch.arange(160)[:, None]
    pairs = PairedLatents({"text": table}, links)
    every = Labelled(pairs, task.targets(facts), torch.arange(160))
    train, held = every.select(torch.arange(120)), every.select(torch.arange(120, 160))
    how = {"training": {"epochs": 30, "lr": 1e-2}, "width": 16, "mix": 0.0}
    fuser = AttentionFuser.fit(train, held, task, FitContext(), **how).fuser
    taken = held.as_taken_by(fuser)
    scores = fuser({"text": taken.latents("text")}, held.present).detach()
    assert task.metrics(scores, held.targets)["f1"] > 0.9
