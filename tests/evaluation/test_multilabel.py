"""AUROC of classes that an item may have any number of."""

import numpy as np
import pytest

from fusemix_core.errors import DataError
from fusemix_core.evaluation.bootstrap import draw_kinds
from fusemix_core.evaluation.multilabel import (
    auroc,
    aurocs,
    groups_of,
    label_table,
    labels_in,
    multi_label,
    of_items,
)

RANDOM = np.random.default_rng(0)


def naive(scores, positive):
    """The share of (positive, negative) pairs in the right order, ties counted half."""
    pairs = [(s, t) for s in scores[positive] for t in scores[~positive]]
    return np.mean([1.0 if s > t else 0.5 if s == t else 0.0 for s, t in pairs])


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_is_the_share_of_pairs_in_order_with_ties_counted_half(levels):
    scores = RANDOM.integers(0, levels, 40).astype(float)
    positive = RANDOM.random(40) < 0.3
    assert auroc(scores, positive) == pytest.approx(naive(scores, positive), abs=1e-12)
    assert auroc(-scores, positive) == pytest.approx(1 - naive(scores, positive), abs=1e-12)


def test_a_nan_counts_against_the_score_and_one_label_has_none():
    assert auroc(np.array([np.nan, 0.0, 1.0]), np.array([True, False, True])) == 0.5
    assert auroc(np.array([1.0, np.nan]), np.array([True, False])) == 0
    assert auroc(np.array([1.0, 2.0]), np.array([True, True])) is None


def test_weights_are_repeated_items(monkeypatch):
    monkeypatch.setattr("fusemix_core.evaluation.multilabel._MOST_VALUES", 64)
    scores = RANDOM.integers(0, 6, 30).astype(float)
    positive = np.arange(30) % 3 == 0
    weights = RANDOM.integers(0, 4, (7, 30))
    for found, row in zip(aurocs(scores, positive, weights), weights, strict=True):
        again = np.repeat(scores, row), np.repeat(positive, row)
        assert found == pytest.approx(naive(*again), abs=1e-12)


def problem(items=40, classes=3):
    labels = RANDOM.random((items, classes)) < 0.4
    labels[:, 2] = False  # a class that no item has
    scores = labels + RANDOM.normal(0, 1, labels.shape)
    return scores, labels, np.arange(items) // 4


def test_intervals_draw_groups_and_the_mean_is_over_classes_with_both_labels():
    scores, labels, groups = problem()
    found = multi_label({"similarity": scores}, labels, ["a", "b", "c"], groups, {}, 300, seed=5)
    own = [naive(scores[:, c], labels[:, c]) for c in (0, 1)]
    assert found["scores"]["similarity"]["auroc"] == pytest.approx(np.mean(own))
    assert found["scores"]["similarity"]["classes"] == 2 and found["groups"] == 10
    assert found["per_class"]["c"] == {
        "positives": 0, "similarity": None, "similarity_interval": None,
    }  # fmt: skip
    means = []
    for counts in draw_kinds(np.ones(10, int), 300, 5):
        rows = np.repeat(np.arange(40), counts[groups])
        means.append(np.mean([naive(scores[rows, c], labels[rows, c]) for c in (0, 1)]))
    low, high = found["scores"]["similarity"]["auroc_interval"]
    assert [low, high] == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_baselines_are_paired_by_group_in_the_last_score():
    scores, labels, groups = problem()
    given = {"similarity": scores, "contrast": 3 * scores - 1}
    others = {"same": given, "none": {name: 0 * values for name, values in given.items()}}
    found = multi_label(given, labels, list("abc"), groups, others, 50, seed=0)["baselines"]
    assert found["same"]["ahead"] == 0 and found["same"]["ahead_interval"] == [0, 0]
    assert found["none"]["contrast"] == 0.5 == found["chance"]["contrast"]
    assert found["none"]["ahead"] == found["chance"]["ahead"] > 0
    with pytest.raises(DataError, match="no AUROC"):
        multi_label(given, np.zeros_like(labels), list("abc"), groups, {}, 50, seed=0)


def test_labels_of_rows_become_those_of_items():
    cells = ["edema; effusion", '["a; b", "edema"]', "", "edema"]
    assert [labels_in(cell, ";") for cell in cells] == [
        ["edema", "effusion"], ["a; b", "edema"], [], ["edema"],
    ]  # fmt: skip
    index = {"edema": 0, "effusion": 1, "a; b": 2}
    table = label_table(cells, ";", index, 3)
    found = of_items(table, np.array([0, 1, 2, -1]), np.array([0, 0, 1, 2]), 3)
    assert found.tolist() == [[True, True, True], [False] * 3, [False] * 3]
    rows = np.array([[0, 7], [1, 7], [2, 8], [3, -1], [2, 9], [4, 9]])
    groups = groups_of(rows, 5)
    assert groups[0] == groups[1] and groups[2] == groups[4] and len(set(groups)) == 3
