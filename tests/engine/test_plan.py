import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusemix_core.config import Training
from fusemix_core.engine.plan import choose_batch_size, epoch_order, plan_steps
from fusemix_core.engine.schedule import learning_rate, progress
from fusemix_core.errors import ConfigError, DataError

SCHEDULES = ["epoch-cosine", "cosine", "constant"]


@given(
    rows=st.integers(4, 10_000),
    rows_per_pair=st.sampled_from([1, 2]),
    batch=st.none() | st.integers(2, 30_000),
)
def test_every_epoch_has_full_batches_and_one_at_least(rows, rows_per_pair, batch):
    plan = plan_steps(rows, rows_per_pair, Training(epochs=3, batch_size=batch))
    pairs = plan.training.batch_size
    assert pairs >= 2 and plan.steps_per_epoch >= 1
    assert plan.rows_per_step == pairs * rows_per_pair
    assert plan.rows_per_step * plan.steps_per_epoch <= rows
    assert rows - plan.rows_per_step * plan.steps_per_epoch < plan.rows_per_step
    if batch is not None and batch * rows_per_pair <= rows:
        assert pairs == batch
    assert plan.total_steps == 3 * plan.steps_per_epoch


@pytest.mark.parametrize(("rows", "rows_per_pair"), [(0, 1), (1, 1), (3, 2)])
def test_too_few_pairs_are_refused(rows, rows_per_pair):
    with pytest.raises(DataError, match=f"{rows} row.*{2 * rows_per_pair} or more"):
        plan_steps(rows, rows_per_pair, Training())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"evaluate_every": 0},
        {"batch_size": 1},
        {"ema": 1.0},
    ],
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        plan_steps(100, 2, Training(**wrong))


def test_the_chosen_batch_grows_with_the_data():
    assert [choose_batch_size(n) for n in (2, 150, 300, 3000, 2_500_000)] == [
        32,
        32,
        32,
        256,
        4096,
    ]


def test_an_epoch_is_a_permutation_of_its_own():
    first, second = epoch_order(50, 0, 0), epoch_order(50, 0, 1)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch_order(50, 1, 0))
    assert torch.equal(first, epoch_order(50, 0, 0))


def test_rows_of_an_item_follow_each_other_and_rows_without_one_stand_alone():
    items = torch.tensor([0, 1, 2, 0, 1, 2, -1, -1])
    orders = [epoch_order(8, 0, epoch, items) for epoch in range(20)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(8))
        runs = items[order][items[order] >= 0].unique_consecutive()
        assert len(runs) == 3
    assert len({tuple(o.tolist()) for o in orders}) > 10


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_warmup_of_a_fit_completes(schedule):
    training = Training(
        epochs=4, batch_size=10, lr=1.0, warmup_lr=0.0, warmup_steps=1000, schedule=schedule
    )
    plan = plan_steps(100, 2, training)
    rates = [
        learning_rate(plan.training, e, i, plan.steps_per_epoch)
        for e in range(4)
        for i in range(plan.steps_per_epoch)
    ]
    ramp = plan.training.warmup_steps
    assert ramp == 10
    assert rates[: ramp - 1] == pytest.approx([i / ramp for i in range(ramp - 1)])
    peak = rates.index(max(rates))
    assert rates[peak] >= 0.85
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_cosine_falls_by_step_and_constant_stays():
    training = Training(epochs=2, lr=1.0, min_lr=0.2, schedule="cosine")
    rates = [learning_rate(training, e, i, 5) for e in range(2) for i in range(5)]
    assert rates == pytest.approx([0.6 + 0.4 * math.cos(math.pi * t / 10) for t in range(10)])
    training = Training(epochs=2, lr=1.0, warmup_lr=0.5, warmup_steps=2, schedule="constant")
    rates = [learning_rate(training, e, i, 2) for e in range(2) for i in range(2)]
    assert rates == [0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_progress_is_a_share(schedule):
    training = Training(epochs=4, schedule=schedule)
    shares = [progress(training, e, i, 5) for e in range(4) for i in range(5)]
    assert shares[0] == 0 and shares[-1] < 1 and shares == sorted(shares)
    assert len(set(shares)) == (4 if schedule == "epoch-cosine" else 20)
