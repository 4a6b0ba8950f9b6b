"""The measures of survival against independent forms, ties included."""

import time as clock

import numpy as np
import pytest
import torch
from metrics import naive

from fusemix_core.metrics.cox import partial_likelihood
from fusemix_core.metrics.survival import (
    Steps,
    breslow,
    brier,
    censoring,
    concordance,
    integrated,
    kaplan_meier,
    nelson_aalen,
)


@pytest.fixture(params=[0, 1, 2])
def rows(request):
    """(time, event, risk) with many ties."""
    draw = np.random.default_rng(request.param)
    time = draw.integers(1, 15, 60).astype(float)
    return time, draw.random(60) < 0.5, draw.integers(-3, 4, 60).astype(float)


def test_concordance_counts_pairs_with_ties(rows):
    assert concordance(*rows) == pytest.approx(naive.concordance(*rows), abs=1e-12)
    time, event, risk = rows
    ranked = risk + 1e-6 * np.arange(60)
    wanted = naive.concordance(time, event, ranked)
    assert concordance(time, event, ranked) == pytest.approx(wanted, abs=1e-12)


def test_concordance_does_not_depend_on_the_order_of_rows(rows):
    order = np.random.default_rng(9).permutation(60)
    assert concordance(*(part[order] for part in rows)) == concordance(*rows)


def test_concordance_by_hand():
    time, event = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    assert concordance(time, event, np.array([3.0, 2.0, 1.0])) == 1
    assert concordance(time, event, np.array([1.0, 2.0, 3.0])) == 0
    assert concordance(time, event, np.zeros(3)) == 0.5
    assert np.isnan(concordance(time, np.zeros(3, bool), np.zeros(3)))
    same = np.ones(2)  # an event is before a censored row of its time
    assert concordance(same, np.array([False, True]), np.array([0.0, 1.0])) == 1
    assert np.isnan(concordance(same, np.array([True, True]), np.array([0.0, 1.0])))


def test_concordance_of_many_rows_is_quick():
    draw = np.random.default_rng(0)
    time, risk = draw.random(200_000), draw.normal(size=200_000)
    start = clock.process_time()
    found = concordance(time, draw.random(200_000) < 0.5, risk)
    assert found == pytest.approx(0.5, abs=0.01)
    assert clock.process_time() - start < 10  # a double loop takes hours


def test_curves_of_all_rows(rows):
    time, event, risk = rows
    at = np.array([0.5, 1, 3.5, 7, 14, 20])
    curves = kaplan_meier(time, event), censoring(time, event), nelson_aalen(time, event)
    wanted = [
        [naive.left(time, event, t) for t in at],
        [naive.left(time, ~event, t, event) for t in at],
        [naive.hazard(time, event, t) for t in at],
    ]
    for curve, values in zip(curves, wanted, strict=True):
        assert np.allclose(curve(at), values, atol=1e-12)
    found = breslow(time, event, risk)(at)
    assert np.allclose(found, [naive.hazard(time, event, t, risk) for t in at], atol=1e-12)
    assert np.allclose(breslow(time, event, np.zeros(60))(at), curves[2](at))


def test_thinned_steps_keep_the_ends():
    steps = Steps(np.arange(1000.0), np.linspace(1, 0, 1000))
    thin = steps.thinned(100)
    assert len(thin.times) == 100 and thin.times[[0, -1]].tolist() == [0, 999]
    assert np.abs(thin(np.arange(1000.0)) - steps(np.arange(1000.0))).max() < 0.02
    assert steps.thinned(1000) is steps
    assert Steps(np.array([]), np.array([]))(np.array([1.0])).tolist() == [1.0]


def test_brier_weighs_by_the_chance_of_not_being_censored(rows):
    time, event, risk = rows
    draw = np.random.default_rng(5)
    training = draw.integers(1, 20, 80).astype(float), draw.random(80) < 0.5
    at = np.array([2.0, 5.0, 9.0])
    survival = np.exp(-np.exp(risk / 3)[:, None] * at / 10)
    found = brier(time, event, survival, at, censoring(*training))
    wanted = [naive.brier(time, event, survival[:, k], t, training) for k, t in enumerate(at)]
    assert np.allclose(found, wanted, atol=1e-12)


def test_brier_without_censoring_is_the_mean_squared_error():
    time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4, bool)
    survival = np.array([[0.2], [0.4], [0.6], [0.9]])
    found = brier(time, event, survival, np.array([2.5]), censoring(time, event))
    assert found[0] == pytest.approx((0.2**2 + 0.4**2 + 0.4**2 + 0.1**2) / 4)


def test_integrated_is_the_mean_over_time():
    assert integrated(np.array([1.0, 1.0, 3.0]), np.array([0.0, 1.0, 2.0])) == 1.5
    assert np.isnan(integrated(np.array([1.0]), np.array([0.0])))


def test_partial_likelihood_is_that_of_each_event_and_its_risk_set(rows):
    time, event, risk = rows
    weight = np.random.default_rng(3).integers(0, 3, 60).astype(float)
    given = [torch.from_numpy(part) for part in (risk, time, event)]
    for row_weight in (np.ones(60), weight):
        wanted = naive.partial_likelihood(risk, time, event, row_weight)
        found = partial_likelihood(*given, torch.from_numpy(row_weight))
        assert found.item() == pytest.approx(wanted, abs=1e-12)
    assert partial_likelihood(*given).item() == pytest.approx(
        naive.partial_likelihood(risk, time, event, np.ones(60))
    )


def test_partial_likelihood_is_differentiable_with_rows_of_no_weight(rows):
    time, event, risk = (torch.from_numpy(part) for part in rows)
    risk = (risk + 0.1).requires_grad_()
    weight = torch.arange(60.0).double() % 3
    assert torch.autograd.gradcheck(lambda r: partial_likelihood(r, time, event, weight), risk)
    none = torch.zeros(60, dtype=torch.bool)
    (slope,) = torch.autograd.grad(partial_likelihood(risk, time, none), risk)
    assert (slope == 0).all()


def test_gradient_at_zero_is_the_martingale_residual(rows):
    time, event, _ = rows
    risk = torch.zeros(60, dtype=torch.float64, requires_grad=True)
    partial_likelihood(risk, torch.from_numpy(time), torch.from_numpy(event)).backward()
    martingale = event - nelson_aalen(time, event)(time)
    assert np.allclose(-risk.grad.numpy() * event.sum(), martingale, atol=1e-12)


def test_large_risks_do_not_overflow():
    risk = torch.tensor([900.0, -900.0, 0.0], dtype=torch.float64)
    found = partial_likelihood(risk, torch.tensor([3.0, 2, 1]), torch.ones(3, dtype=torch.bool))
    assert found.item() == pytest.approx((0 + 1800 + 900) / 3)
