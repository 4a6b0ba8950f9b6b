"""The measures of predictions against independent forms."""

import numpy as np
import pytest
from metrics import naive
from scipy import stats

from fusemix_core.metrics.classes import (
    accuracy,
    auc_one_vs_rest,
    balanced_accuracy,
    confusion,
    f1_macro,
    log_loss,
    quadratic_kappa,
)
from fusemix_core.metrics.numbers import mae, r2, rmse
from fusemix_core.metrics.ranks import average_precision, average_ranks, roc_auc, spearman
from fusemix_core.metrics.reliability import pooled, reliability


@pytest.fixture(params=[0, 1, 2])
def draw(request):
    return np.random.default_rng(request.param)


def test_ranks_of_ties_are_their_mean(draw):
    values = draw.integers(0, 6, 40)
    assert np.array_equal(average_ranks(values), stats.rankdata(values))


def test_roc_auc_counts_pairs_and_halves_ties(draw):
    scores, positive = draw.integers(0, 9, 50).astype(float), draw.random(50) < 0.3
    assert roc_auc(scores, positive) == pytest.approx(naive.auc(scores, positive), abs=1e-12)


def test_average_precision_takes_tied_scores_as_one_threshold(draw):
    scores, positive = draw.integers(0, 9, 50).astype(float), draw.random(50) < 0.3
    wanted = naive.average_precision(scores, positive)
    assert average_precision(scores, positive) == pytest.approx(wanted, abs=1e-12)


def test_curves_of_a_single_class_are_undefined():
    scores, none = np.arange(4.0), np.zeros(4, bool)
    assert np.isnan(roc_auc(scores, none)) and np.isnan(roc_auc(scores, ~none))
    assert np.isnan(average_precision(scores, none))


def test_spearman_is_that_of_scipy_with_ties(draw):
    first = draw.integers(0, 6, 40).astype(float)
    second = first + draw.integers(0, 4, 40)
    wanted = stats.spearmanr(first, second).statistic
    assert spearman(first, second) == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(spearman(first, np.ones(40)))


def test_measures_of_classes(draw):
    truth, found = draw.integers(0, 4, 60), draw.integers(0, 5, 60)
    truth[truth == 2] = 1  # a class that no row has
    recalls = [(found[truth == k] == k).mean() for k in set(truth.tolist())]
    assert accuracy(truth, found) == (truth == found).mean()
    assert balanced_accuracy(truth, found) == pytest.approx(np.mean(recalls), abs=1e-12)
    assert f1_macro(truth, found) == pytest.approx(naive.f1_macro(truth, found), abs=1e-12)
    assert confusion(truth, found, 5)[1, 4] == ((truth == 1) & (found == 4)).sum()


def test_kappa_is_one_less_the_ratio_of_mean_squared_distances(draw):
    truth = draw.integers(0, 5, 60)
    found = np.clip(truth + draw.integers(-1, 2, 60), 0, 4)
    wanted = naive.kappa(truth, found, 5)
    assert quadratic_kappa(truth, found, 5) == pytest.approx(wanted, abs=1e-12)
    assert quadratic_kappa(truth, truth, 5) == 1
    assert np.isnan(quadratic_kappa(np.ones(3, int), np.ones(3, int), 5))


def test_one_against_all_others_leaves_out_classes_without_rows(draw):
    truth, scores = draw.integers(0, 3, 60), draw.random((60, 4))
    wanted = np.mean([naive.auc(scores[:, k], truth == k) for k in range(3)])
    assert auc_one_vs_rest(scores, truth) == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(auc_one_vs_rest(scores, np.zeros(60, int)))


def test_log_loss_takes_the_true_class():
    logarithms = np.log([[0.5, 0.5], [0.25, 0.75]])
    assert log_loss(logarithms, np.array([0, 1])) == pytest.approx(-(np.log(0.375)) / 2)


def test_calibration_error_is_the_weighted_gap_of_fifteen_bins(draw):
    confidence = np.r_[draw.random(200), 1 / 15, 2 / 15, 1.0]
    right = draw.random(203) < confidence**2
    found = reliability(confidence, right)
    assert found.ece == pytest.approx(naive.ece(confidence, right), abs=1e-12)
    assert found.count.sum() == 203 and len(found.count) <= 15
    assert (np.diff(found.confidence) > 0).all()
    assert found.as_dict()["ece"] == found.ece


def test_a_perfectly_calibrated_prediction_has_no_error():
    confidence = np.repeat([0.25, 0.75], 8)
    right = np.r_[np.arange(8) < 2, np.arange(8) < 6]
    assert reliability(confidence, right).ece == 0


def test_measures_of_numbers(draw):
    truth, found = draw.normal(size=30), draw.normal(size=30)
    assert r2(truth, found) == pytest.approx(1 - np.mean((truth - found) ** 2) / truth.var())
    assert r2(truth, np.full(30, truth.mean())) == pytest.approx(0)
    assert np.isnan(r2(np.full(3, 0.1), np.arange(3.0)))
    assert rmse(truth, found) ** 2 == pytest.approx(np.mean((truth - found) ** 2))
    assert mae(truth, truth + 2) == pytest.approx(2)


def test_the_reliability_of_sets_together_is_that_of_all_predictions():
    draw = np.random.default_rng(3)
    confidence, right = draw.uniform(0.2, 1, 400), draw.random(400) < 0.7
    parts = [reliability(confidence[i::5], right[i::5]) for i in range(5)]
    whole, found = reliability(confidence, right), pooled(parts)
    for name in ("confidence", "accuracy", "count", "bins"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-12)
    assert found.ece == pytest.approx(whole.ece)
    assert found.ece < np.mean([part.ece for part in parts])
