"""Measures of generated items, against naive forms of their definitions."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.evaluation import generated as g


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


def test_kid_is_the_unbiased_estimate_by_the_cubic_kernel(draw):
    x, y = torch.randn(7, 5, generator=draw), 0.5 + torch.randn(9, 5, generator=draw)

    def kernel(a, b):
        return (float(a.double() @ b.double()) / 5 + 1) ** 3

    within = [
        sum(kernel(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        for rows, n in ((x, 7), (y, 9))
    ]
    across = sum(kernel(a, b) for a in x for b in y) / 63
    assert g.kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average_and_grows_with_the_distance(draw):
    found = [
        g.kernel_distance(torch.randn(20, 4, generator=draw), torch.randn(25, 4, generator=draw))
        for _ in range(200)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))
    assert min(found) < 0 < max(found)
    x = torch.randn(50, 4, generator=draw)
    assert g.kernel_distance(x, x.roll(1, 0) + 2) > g.kernel_distance(x, x.roll(1, 0) + 1) > 0


def test_wins_are_the_other_columns_that_the_own_one_beats(draw):
    scores = torch.randint(0, 4, (9, 5), generator=draw).float()
    own = torch.tensor([0, 0, 1, 1, 2, 3, 3, 4, 4])
    naive = [
        sum(scores[i, own[i]] > scores[i, j] for j in range(5) if j != own[i]) / 4 for i in range(9)
    ]
    assert g.wins(scores, own).tolist() == pytest.approx([float(n) for n in naive])


def test_the_rank_of_a_concept_counts_the_centroids_that_are_as_near(draw):
    rows, middles = torch.randn(12, 4, generator=draw), torch.randn(6, 4, generator=draw)
    middles[5] = middles[2]
    concepts = torch.randint(0, 6, (12,), generator=draw)
    concepts[0] = 2
    for i, rank in enumerate(g.concept_ranks(rows, concepts, middles).tolist()):
        own = torch.cosine_similarity(rows[i], middles[concepts[i]], dim=0)
        as_near = [
            torch.cosine_similarity(rows[i], middle, dim=0) >= own - 1e-6
            for j, middle in enumerate(middles)
            if j != concepts[i]
        ]
        assert rank == sum(as_near)
    assert g.concept_ranks(middles[2:3], torch.tensor([2]), middles).item() == 1  # a tie


def test_a_real_item_is_ranked_without_itself(draw):
    concepts = torch.tensor([0, 0, 0, 1, 1, 3, 4, 4, 4, 4])
    rows = torch.randn(10, 6, generator=draw) + 1.5 * torch.eye(6)[concepts]
    which, ranks = g.left_out_ranks(rows, concepts)
    assert which.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    unit = normalize(rows, dim=1)
    for i, rank in zip(which.tolist(), ranks.tolist(), strict=True):
        others = {
            c: normalize(sum(unit[j] for j in range(10) if concepts[j] == c and j != i), dim=0)
            for c in (0, 1, 3, 4)
        }
        scores = {c: float(unit[i] @ middle) for c, middle in others.items()}
        own = int(concepts[i])
        assert rank == sum(s >= scores[own] for c, s in scores.items() if c != own)


def test_diversity_is_the_mean_distance_within_a_source(draw):
    rows, sources = torch.randn(7, 3, generator=draw), torch.tensor([0, 0, 1, 2, 2, 2, 3])
    pairs = [(0, 1), (3, 4), (3, 5), (4, 5)]
    naive = np.mean([1 - float(torch.cosine_similarity(rows[i], rows[j], dim=0)) for i, j in pairs])
    assert g.diversity(rows, sources) == pytest.approx(naive, rel=1e-5)
    assert g.diversity(rows, torch.arange(7)) is None


def test_the_nearest_distance_is_the_root_mean_square(draw):
    rows, others = torch.rand(4, 6, generator=draw), torch.rand(5, 6, generator=draw)
    naive = [min(float((a - b).square().mean().sqrt()) for b in others) for a in rows]
    assert g.nearest_distances(rows, others).tolist() == pytest.approx(naive, rel=1e-5)
    assert g.nearest_distances(others[2:3], others).item() == 0


def test_what_the_bootstrap_draws_are_sources_not_images(draw):
    hits = torch.rand(60, generator=draw) < 0.4
    items = torch.arange(60)
    value, bounds = g.mean_with_interval(hits, items, 1000, 0)
    assert value == pytest.approx(100 * float(hits.float().mean()))
    twice = g.mean_with_interval(hits.repeat_interleave(4), items.repeat_interleave(4), 1000, 0)
    assert twice == (value, bounds)
    naive = np.random.default_rng(1)
    means = [100 * hits.numpy()[naive.integers(0, 60, 60)].mean() for _ in range(4000)]
    assert bounds == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=2.5)
    assert g.mean_with_interval(hits[:1], items[:1], 1000, 0)[1] is None


def test_ratio_and_difference_are_paired_by_item(draw):
    text = torch.rand(80, generator=draw) < 0.6
    own = text.clone()
    items = torch.arange(80)
    assert g.ratio_with_interval(own, text, items, 500, 0) == (1.0, [1.0, 1.0])
    assert g.difference_with_interval(own, text, items, 500, 0) == (0.0, [0.0, 0.0])
    own[:20] = False
    ratio, bounds = g.ratio_with_interval(own, text, items, 500, 0)
    assert ratio == pytest.approx(float(own.sum() / text.sum()))
    assert bounds[0] < ratio < bounds[1] < 1
    difference, bounds = g.difference_with_interval(own, text, items, 500, 0)
    assert difference == pytest.approx(100 * float((own.float() - text.float()).mean()))
    assert bounds[0] < difference < bounds[1] < 0
    nothing = torch.zeros(80)
    assert g.ratio_with_interval(own, nothing, items, 500, 0) == (None, None)


def test_a_concept_without_items_has_no_centroid(draw):
    rows = torch.randn(4, 3, generator=draw)
    middles = g.centroids(rows, torch.tensor([0, 0, 2, 2]), 3)
    assert not middles[1].any()
    torch.testing.assert_close(middles[0], normalize(normalize(rows, dim=1)[:2].mean(0), dim=0))
