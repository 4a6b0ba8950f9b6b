"""Survival: events and times, risks, curves, and what can't be learnt from."""

import json

import numpy as np
import pytest
import torch
from metrics import naive

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError, UnknownNameError
from fusemix_core.metrics.survival import breslow, nelson_aalen
from fusemix_core.tasks.survive import CURVE, Survive, deviance_residuals


def survival_facts(time, event):
    names = ("alive", "dead")
    codes = np.where(np.isnan(event), -1, np.nan_to_num(event)).astype(np.int64)
    return {
        "time": Fact("number", np.array(time, np.float32)),
        "event": Fact("class", codes, names),
    }


def drawn(rows=300, number=0):
    """(facts, the true log risks `[n, 1]`): exponential times, censored at random."""
    draw = np.random.default_rng(number)
    risk = draw.normal(size=rows)
    time, end = draw.exponential(np.exp(-risk)), draw.exponential(2.0, rows)
    facts = survival_facts(np.minimum(time, end), (time <= end).astype(float))
    return facts, torch.from_numpy(risk)[:, None]


def numbers(values, **more):
    return {"time": Fact("number", np.arange(1, 5, dtype=np.float32)),
            "event": Fact("number", np.array(values, np.float32)), **more}  # fmt: skip


def test_the_task_is_built_again_from_its_options():
    facts, risk = drawn()
    task = Survive.learn(facts)
    again = Survive(**json.loads(json.dumps(task.options)))
    assert torch.equal(again.probabilities(risk), task.probabilities(risk))
    assert again.metrics(risk, again.targets(facts)) == task.metrics(risk, task.targets(facts))
    assert len(task.times) <= CURVE and task.options["event_is"] == "dead"


def test_targets_are_times_and_events_known_where_both_are():
    facts = survival_facts([1, 2, np.nan, 4], [1, 0, 1, np.nan])
    targets = Survive.learn(facts).targets(facts)
    assert targets.known.tolist() == [True, True, False, False]
    assert targets.values[:2].tolist() == [[1, 1], [2, 0]]


@pytest.mark.parametrize(
    ("values", "given", "came"),
    [
        ([0, 1, 0, 1], "", [0, 1, 0, 1]),
        ([0, 1, 0, 1], "0", [1, 0, 1, 0]),
        ([1, 2, 2, 1], "2", [0, 1, 1, 0]),
        ([0, 1, 0, 1], 0, [1, 0, 1, 0]),
        ([1, 1, 1, 1], None, [1, 1, 1, 1]),
    ],
)
def test_which_value_is_the_event(values, given, came):
    facts = numbers(values)
    task = Survive.learn(facts, event_is=given)
    assert task.targets(facts).values[:, 1].tolist() == came


def test_a_note_says_which_value_is_the_event():
    facts = numbers([0, 1, 0, 0])
    (note,) = Survive.learn(facts).notes(facts)
    assert "('1') came in 1 of 4" in note and "--task 'survive event_is=0'" in note
    (note,) = Survive.learn(facts, event_is=0).notes(facts)
    assert "('0') came in 3 of 4" in note and "event_is=1" in note


def test_the_loss_is_coxs_of_known_rows():
    facts, risk = drawn(60)
    facts["time"].values[5] = np.nan
    task = Survive.learn(facts)
    targets = task.targets(facts)
    known = targets.known.numpy()
    time, event = targets.values[known].double().numpy().T
    wanted = naive.partial_likelihood(risk[known, 0].numpy(), time, event > 0, np.ones(59))
    assert task.loss(risk, targets).item() == pytest.approx(wanted)
    given = risk.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: task.loss(s, targets), given)


def test_responses_have_the_sign_of_the_martingale_residuals_and_order_as_risk():
    facts, risk = drawn(600)
    task = Survive.learn(facts)
    targets = task.targets(facts)
    values, known = task.responses(targets)
    assert known.all() and values.square().mean() == pytest.approx(1, abs=1e-5)
    time, event = targets.values.double().numpy().T
    martingale = event - nelson_aalen(time, event > 0)(time)
    assert np.array_equal(np.sign(values[:, 0].numpy()), np.sign(martingale.astype(np.float32)))
    assert np.corrcoef(values[:, 0], risk[:, 0])[0, 1] > 0.4
    assert task.score(values, targets) > 0.9  # who dies early is at risk


def test_deviance_residuals_are_the_textbooks():
    time, event = np.array([1.0, 2, 2, 3]), np.array([True, False, True, False])
    hazard = np.array([1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3])
    wanted = [
        np.sign(d - h) * np.sqrt(-2 * ((d - h) + (np.log(h) if d else 0)))
        for d, h in zip(event, hazard, strict=True)
    ]
    found = deviance_residuals(time, event)
    assert np.allclose(found / found[0], np.array(wanted) / wanted[0])


def test_curves_are_those_of_the_training_rows_until_scores_settle_them():
    facts, risk = drawn()
    task = Survive.learn(facts)
    targets = task.targets(facts)
    time, event = targets.values.double().numpy().T
    flat = task.survival(torch.zeros(1, 1), np.array([1.0]))[0, 0]
    assert flat == pytest.approx(
        np.exp(-nelson_aalen(time, event > 0)(np.array([1.0]))[0]), abs=0.02
    )
    settled = task.settle(risk, targets)
    hazard = breslow(time, event > 0, risk[:, 0].numpy())
    at = settled.times
    assert np.allclose(settled.survival(torch.zeros(1, 1), at)[0], np.exp(-hazard(at)))
    curves = settled.probabilities(risk)
    assert curves.shape == (300, len(at)) and (curves.diff(dim=1) <= 0).all()
    # True survival is exp(-t exp(risk)).
    middle = np.array([0.3, 0.7])
    true = np.exp(-middle * np.exp(risk.numpy()))
    assert np.abs(settled.survival(risk, middle) - true).mean() < 0.05


def test_calibration_finds_the_scale_of_risks_and_leaves_the_order():
    facts, risk = drawn(800)
    task = Survive.learn(facts)
    targets = task.targets(facts)
    found = task.calibrate(risk / 7, targets)
    assert found.scale / 7 == pytest.approx(1, abs=0.15) and found.offsets == ()


def test_metrics_reward_the_true_risk():
    facts, risk = drawn()
    task = Survive.learn(facts)
    targets = task.targets(facts)
    settled = task.settle(risk, targets)
    true = settled.metrics(risk, targets)
    none = task.metrics(torch.zeros(300, 1), targets)
    time, event = targets.values.double().numpy().T
    assert true["c"] == pytest.approx(naive.concordance(time, event > 0, risk[:, 0].numpy()))
    assert true["c"] > 0.7 and none["c"] == 0.5 and task.score(risk, targets) == true["c"]
    assert true["integrated_brier"] < 0.8 * none["integrated_brier"] < 0.3
    assert task.per_row(risk, targets) is None


def test_measures_without_a_pair_are_undefined():
    facts = survival_facts([1, 2, 3], [1, 1, 0])
    task = Survive.learn(facts)
    few = task.targets(survival_facts([2], [1]))
    assert task.metrics(torch.zeros(1, 1), few) == {"c": None, "integrated_brier": None}


def test_decoding_gives_the_median_time_and_some_survivals():
    facts, risk = drawn()
    task = Survive.learn(facts)
    table = task.decode(torch.tensor([[-8.0], [0.0], [3.0]]))
    assert np.isnan(table["prediction"][0]) and table["prediction"][2] < table["prediction"][1]
    assert table["log_risk"].tolist() == [-8, 0, 3]
    survivals = [name for name in table if name.startswith("survival_")]
    assert 3 <= len(survivals) <= 5
    assert all((np.diff(table[name]) < 0).all() for name in survivals)


def test_what_can_not_be_learnt_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match="all are censored") as caught:
        Survive.learn(numbers([0, 0, 0, 0]))
    assert "event_is" in caught.value.hint
    with pytest.raises(ConfigError, match="neither says") as caught:
        Survive.learn(numbers([3, 4, 3, 4]))
    assert "--task 'survive event_is=4'" in caught.value.hint
    with pytest.raises(ConfigError, match="3 different values"):
        Survive.learn(numbers([0, 1, 2, 1]))
    with pytest.raises(UnknownNameError, match="no value of the event named '7'"):
        Survive.learn(numbers([0, 1, 0, 1]), event_is="7")
    with pytest.raises(DataError, match="no event"):
        Survive.learn({"time": Fact("number", np.ones(2, np.float32))})
    for time, message in (
        ([np.inf, 1, 1, 1], "infinite"),
        ([1, -2, 1, 1], r"negative in 1 rows.*-2"),
    ):
        facts = numbers([0, 1, 0, 1], time=Fact("number", np.array(time, np.float32)))
        with pytest.raises(DataError, match=message):
            Survive.learn(facts)
