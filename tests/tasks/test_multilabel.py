"""Labels, each with its own missing rows."""

import json

import numpy as np
import pytest
import torch
from metrics import naive

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.tasks.multilabel import Multilabel

NAN = np.nan
TOXIC = [1, 0, NAN, 1, 0, 0]
SOLUBLE = [0, 0, 1, NAN, NAN, 1]


def labels(**columns):
    return {name: Fact("number", np.array(v, np.float32)) for name, v in columns.items()}


FACTS = labels(toxic=TOXIC, soluble=SOLUBLE)
KNOWN = ~np.isnan(np.stack([TOXIC, SOLUBLE], axis=1))


@pytest.fixture
def task():
    return Multilabel.learn(FACTS)


def scores(rows=6, outputs=2):
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(1))


def test_the_task_is_built_again_from_its_options(task):
    again = Multilabel(**json.loads(json.dumps(task.options)))
    assert again.names == ("toxic", "soluble") and again.positive == ("1", "1")
    assert torch.equal(again.targets(FACTS).values, task.targets(FACTS).values)


def test_labels_are_known_one_by_one(task):
    targets = task.targets(FACTS)
    assert targets.known.numpy().tolist() == KNOWN.tolist()
    assert targets.values[0].tolist() == [1, 0] and targets.rows.all()
    values, known = task.responses(targets)
    assert set(values[known].tolist()) == {-1, 1} and (values[~known] == 0).all()


def test_the_loss_is_the_mean_over_known_labels(task):
    given, targets = scores().double(), task.targets(FACTS)
    truth = np.nan_to_num(np.stack([TOXIC, SOLUBLE], axis=1))
    p = 1 / (1 + np.exp(-given.numpy()))
    each = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    assert task.loss(given, targets).item() == pytest.approx(each[KNOWN].mean())
    weight = np.arange(1.0, 7.0)
    share = weight[:, None] * KNOWN
    wanted = (each * share).sum() / share.sum()
    assert task.loss(given, targets, torch.from_numpy(weight)).item() == pytest.approx(wanted)
    changed = given.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: task.loss(s, targets), changed)


def test_metrics_are_means_over_labels_with_both_values(task):
    given, targets = scores(), task.targets(FACTS)
    metrics = task.metrics(given, targets)
    areas, precisions = [], []
    for k, column in enumerate((TOXIC, SOLUBLE)):
        known = KNOWN[:, k]
        one = given[known, k].numpy(), np.array(column)[known] > 0
        areas.append(naive.auc(*one))
        precisions.append(naive.average_precision(*one))
    assert metrics["auc"] == pytest.approx(np.mean(areas)) == task.score(given, targets)
    assert metrics["average_precision"] == pytest.approx(np.mean(precisions))
    assert metrics["auc_toxic"] == pytest.approx(areas[0])
    p = given.double().sigmoid().numpy()[KNOWN]
    assert metrics["ece"] == pytest.approx(naive.ece(p, targets.values.numpy()[KNOWN]))
    few = task.metrics(given[:2], targets[:2])
    assert few["auc_soluble"] is None and few["auc"] == few["auc_toxic"]
    with pytest.raises(DataError, match="No label is known"):
        task.metrics(given[:1], task.targets(labels(toxic=[NAN], soluble=[NAN])))


def test_decoding_names_the_labels_that_apply(task):
    table = task.decode(torch.tensor([[2.0, 1.0], [-1.0, 3.0], [-1.0, -2.0]]))
    assert table["prediction"] == ["toxic;soluble", "soluble", ""]
    assert table["probability_toxic"][0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_the_baseline_is_the_share_of_each_label(task):
    assert task.baseline(task.targets(FACTS)).sigmoid().tolist() == pytest.approx([3 / 7, 3 / 6])


def test_models_are_averaged_by_their_probabilities(task):
    first, second = scores(), -scores()
    assert torch.allclose(task.average([first, second]).sigmoid(), torch.full((6, 2), 0.5))


def test_a_label_with_one_value_is_noted_and_only_one_of_two_values_is_learnt():
    facts = labels(toxic=TOXIC, heavy=[0, 0, 0, 0, 0, NAN])
    (note,) = Multilabel.learn(facts).notes(facts)
    assert "'heavy'" in note and "--target" in note
    assert Multilabel.learn(FACTS).notes(FACTS) == []


def test_labels_of_words_say_which_of_them_applies():
    words = {"grade": Fact("class", np.array([0, 1, 1]), ("good", "bad"))}
    with pytest.raises(ConfigError, match="label 'grade'.*'good', 'bad'"):
        Multilabel.learn(words)
    assert Multilabel.learn(words, positive=["bad"]).targets(words).values[:, 0].tolist() == [
        0,
        1,
        1,
    ]


def test_values_that_mean_yes_are_one_for_all_or_one_for_each():
    assert Multilabel.learn(FACTS, positive=0).positive == ("0", "0")
    assert Multilabel.learn(FACTS, positive="1,0").positive == ("1", "0")
    with pytest.raises(ConfigError, match="2 labels, and 3 values"):
        Multilabel.learn(FACTS, positive=[1, 0, 1])


def test_what_can_not_be_learnt_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match="Each of 2 labels has one value"):
        Multilabel.learn(labels(a=[0, 0, NAN], b=[1, 1, 1]))
    with pytest.raises(DataError, match="missing in all 2"):
        Multilabel.learn(labels(a=[0, 1], b=[NAN, NAN]))
    with pytest.raises(ConfigError, match="label 'a' has 3 different values"):
        Multilabel.learn(labels(a=[0, 1, 2]))
    with pytest.raises(DataError, match="no label"):
        Multilabel.learn({})
