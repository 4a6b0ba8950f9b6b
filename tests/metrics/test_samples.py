"""Measures of many samples at once are those of each sample's rows."""

import numpy as np
import pytest

from fusemix_core.metrics import classes, numbers, ranks, samples, survival

ROWS = 40


@pytest.fixture(params=[0, 1])
def draw(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def times(draw):
    """As a bootstrap draws them, and one sample with a single row."""
    drawn = draw.multinomial(ROWS, np.full(ROWS, 1 / ROWS), size=6)
    return np.concatenate([drawn, 3 * np.eye(ROWS, dtype=np.int64)[:1]])


def each(measure, times, *parts):
    """One sample after the other."""
    rows = [np.repeat(np.arange(ROWS), one) for one in times]
    return np.array([measure(*(part[index] for part in parts)) for index in rows])


def same(found, wanted):
    return np.allclose(found, wanted, atol=1e-12, equal_nan=True)


def test_means(draw, times):
    values = draw.normal(size=ROWS)
    assert same(samples.mean(values, times), each(np.mean, times, values))


def test_r2(draw, times):
    truth, found = draw.normal(1e3, 1, ROWS), draw.normal(1e3, 1, ROWS)
    wanted = each(numbers.r2, times, truth, found)
    assert np.allclose(samples.r2(truth, found, times), wanted, equal_nan=True)
    assert np.isnan(wanted[-1])


def test_roc_auc_with_ties(draw, times):
    scores, positive = draw.integers(0, 8, ROWS).astype(float), draw.random(ROWS) < 0.4
    found = samples.roc_auc(scores, positive, times)
    assert same(found, each(ranks.roc_auc, times, scores, positive)) and np.isnan(found[-1])


def test_quadratic_kappa(draw, times):
    truth, found = draw.integers(0, 4, ROWS), draw.integers(0, 4, ROWS)
    wanted = each(lambda a, b: classes.quadratic_kappa(a, b, 4), times[:-1], truth, found)
    assert same(samples.quadratic_kappa(truth, found, 4, times[:-1]), wanted)


@pytest.mark.parametrize("block", [samples.BLOCK, 7])
def test_concordance_with_ties(draw, times, block, monkeypatch):
    monkeypatch.setattr(samples, "BLOCK", block)
    time, risk = (draw.integers(0, 9, ROWS).astype(float) for _ in range(2))
    event = draw.random(ROWS) < 0.6
    found = samples.concordance(time, event, risk, times)
    assert same(found, each(survival.concordance, times, time, event, risk))
    assert np.isnan(found[-1])
