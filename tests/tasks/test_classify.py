"""Classes: coding, loss, decoding, and what can't be learnt from."""

import json

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError, UnknownNameError
from fusemix_core.prediction import Targets
from fusemix_core.tasks.classify import Classify

NAMES = ("bird", "cat", "dog")
INDEX = np.array([0, 1, 2, 2, -1, 1, 0, 2])
FACTS = {"target": Fact("class", INDEX, NAMES)}


@pytest.fixture
def task():
    return Classify.learn(FACTS)


def scores(rows, outputs=3, number=0):
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(number))


def test_the_task_is_built_again_from_its_options(task):
    again = Classify(**json.loads(json.dumps(task.options)))
    assert again.names == task.names == NAMES and again.options == task.options
    assert again.outputs == 3


def test_targets_are_indices_and_missing_ones_are_not_known(task):
    found = task.targets(FACTS)
    assert found.known.tolist() == (INDEX >= 0).tolist()
    assert found.values[found.known].tolist() == [0, 1, 2, 2, 1, 0, 2]
    assert len(found[torch.tensor([1, 3])]) == 2


def test_classes_that_training_had_not_are_counted_and_not_known(task):
    other = {"target": Fact("class", np.array([1, 0, 1, 2, -1]), ("cat", "eel", "fox"))}
    assert task.unseen(other) == {"eel": 2, "fox": 1}
    assert task.targets(other).known.tolist() == [False, True, False, False, False]
    assert task.targets(other).values[1] == 1


def test_a_class_without_rows_in_training_is_not_one_of_the_task():
    rows = INDEX != 1
    task = Classify.learn({"target": FACTS["target"].select(rows)})
    assert task.names == ("bird", "dog")


def test_numbers_and_texts_are_classes_in_their_order():
    number = {"target": Fact("number", np.array([10, 2, np.nan, 2.5], np.float32))}
    task = Classify.learn(number)
    assert task.names == ("2", "2.5", "10")
    assert task.targets(number).values.tolist() == [2, 0, -1, 1]
    text = {"target": Fact("text", np.array([1, 0, -1, 2]), ("pear", "fig", "apple"))}
    task = Classify.learn(text)
    assert task.names == ("apple", "fig", "pear")
    assert task.targets(text).values.tolist() == [1, 2, -1, 0]


def test_the_loss_is_the_mean_negative_log_probability_of_known_rows(task):
    given, targets = scores(8), task.targets(FACTS)
    known = targets.known
    wanted = -given.log_softmax(1)[known, targets.values[known]].mean()
    assert torch.allclose(task.loss(given, targets), wanted)
    changed = given.clone()
    changed[~known] = 1e6
    assert torch.equal(task.loss(changed, targets), task.loss(given, targets))


def test_weighted_rows_and_classes_weigh_in_the_mean():
    task = Classify.learn(FACTS, weighted=True)
    assert task.options["weights"] == pytest.approx([7 / 6, 7 / 6, 7 / 9])
    given, targets = scores(8), task.targets(FACTS)
    weight = torch.arange(1.0, 9.0)
    each = -given.log_softmax(1).gather(1, targets.values.clamp(min=0)[:, None])[:, 0]
    share = weight * torch.tensor(task.options["weights"])[targets.values] * targets.known
    wanted = (each * share).sum() / share.sum()
    assert torch.allclose(task.loss(given, targets, weight), wanted)


def test_the_loss_is_differentiable_also_if_nothing_is_known(task):
    targets = task.targets(FACTS)
    given = scores(8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: task.loss(s, targets), given)
    none = Targets(targets.values, torch.zeros(8, dtype=torch.bool))
    loss = task.loss(given, none)
    loss.backward()
    assert loss == 0 and (given.grad == 0).all()


def test_responses_are_one_hot(task):
    values, known = task.responses(task.targets(FACTS))
    assert values.dtype == torch.float32 and known.shape == values.shape == (8, 3)
    assert values.sum(dim=1).tolist() == (INDEX >= 0).tolist()
    assert values.argmax(dim=1)[INDEX >= 0].tolist() == INDEX[INDEX >= 0].tolist()


def test_decoding_gives_names_and_probabilities(task):
    given = scores(4)
    table = task.decode(given)
    assert list(table) == ["prediction", *(f"probability_{n}" for n in NAMES)]
    assert table["prediction"] == [NAMES[i] for i in given.argmax(1)]
    total = sum(table[f"probability_{n}"] for n in NAMES)
    assert np.allclose(total, 1, atol=1e-12)


def test_metrics_leave_out_rows_that_are_not_known(task):
    given, targets = scores(8), task.targets(FACTS)
    metrics = task.metrics(given, targets)
    assert set(metrics) == {
        "accuracy", "balanced_accuracy", "f1_macro", "log_loss", "ece", "auc"
    }  # fmt: skip
    known = targets.known
    assert task.metrics(given[known], targets[known]) == metrics
    assert metrics["log_loss"] == pytest.approx(task.loss(given.double(), targets).item())
    rows = task.per_row(given, targets)
    assert rows[known].mean().item() == pytest.approx(metrics["accuracy"])
    assert rows[~known].isnan().all() and task.score(given, targets) == metrics["accuracy"]


def test_auc_of_two_classes_is_that_of_the_positive_one():
    facts = {"target": Fact("class", np.array([0, 0, 1, 1]), ("ill", "well"))}
    given = torch.tensor([[2.0, 0], [1, 0], [0, 1], [3, 0]])
    last, ill = Classify.learn(facts), Classify.learn(facts, positive="ill")
    targets = last.targets(facts)
    assert last.metrics(given, targets)["auc"] == ill.metrics(given, targets)["auc"] == 0.5
    assert last.metrics(given, targets)["average_precision"] == pytest.approx(0.75)
    assert ill.metrics(given, targets)["average_precision"] == pytest.approx(7 / 12)
    with pytest.raises(UnknownNameError, match="no class of the target named 'sick'"):
        Classify.learn(facts, positive="sick")


def test_the_positive_class_may_be_a_number_or_a_boolean():
    number = {"target": Fact("number", np.array([0, 1, 2, 0], np.float32))}
    assert Classify.learn(number, positive=1).positive == 1
    flags = {"target": Fact("class", np.array([0, 1, 0]), ("false", "true"))}
    assert Classify.learn(flags, positive=False).positive == 0


def test_measures_of_one_class_are_undefined_and_of_no_row_an_error(task):
    targets = task.targets(FACTS)
    assert task.metrics(scores(8)[:1], targets[:1])["auc"] is None
    with pytest.raises(DataError, match="isn't known in any of 1 rows"):
        task.metrics(scores(1), targets[4:5])


def test_the_baseline_is_the_share_of_each_class(task):
    shares = task.baseline(task.targets(FACTS)).softmax(0)
    assert shares.tolist() == pytest.approx([0.3, 0.3, 0.4])


def test_models_are_averaged_by_their_probabilities(task):
    first, second = scores(4), scores(4, number=1)
    mean = (first.softmax(1) + second.softmax(1)) / 2
    assert torch.allclose(task.average([first, second]).softmax(1), mean)


def test_a_target_that_can_not_be_learnt_is_an_error_with_a_remedy():
    one = {"target": Fact("class", np.array([0, 0, -1]), ("yes", "no"))}
    with pytest.raises(DataError, match="'yes' in all 2 training rows") as caught:
        Classify.learn(one)
    assert "--target COLUMN" in caught.value.hint
    with pytest.raises(DataError, match="missing in all 2 training rows"):
        Classify.learn({"target": Fact("class", np.array([-1, -1]), ("yes",))})
    with pytest.raises(DataError, match="boxes; this task needs classes"):
        Classify.learn({"target": Fact("box", np.zeros((2, 4), np.float32))})
    with pytest.raises(DataError, match="no target"):
        Classify.learn({})


def test_classes_of_one_row_are_noted(task):
    assert task.notes(FACTS) == []
    rare = {"target": FACTS["target"].select(np.array([0, 1, 2, 3]))}
    assert "'bird', 'cat' have a single training row" in Classify.learn(rare).notes(rare)[0]
