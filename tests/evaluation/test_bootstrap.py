import numpy as np
import pytest
import torch

from fusemix_core.evaluation.bootstrap import (
    cluster_sums,
    components,
    draw_kinds,
    interval,
    paired_interval,
    resample,
)
from fusemix_core.evaluation.retrieval import retrieval


def naive_components(links, sizes):
    nodes = [(k, i) for k, n in enumerate(sizes) for i in range(n)]
    group = {node: {node} for node in nodes}
    for row in links:
        present = [(k, i) for k, i in enumerate(row) if i >= 0]
        merged = set().union(*(group[p] for p in present))
        for node in merged:
            group[node] = merged
    return {node: frozenset(members) for node, members in group.items()}


@pytest.mark.parametrize("seed", range(5))
def test_components_equal_the_naive_form(seed):
    generator = np.random.default_rng(seed)
    sizes = [30, 40, 25]
    links = np.stack([generator.integers(0, n, 35) for n in sizes], axis=1)
    links[np.arange(35), generator.integers(0, 3, 35)] = -1
    labels = components(links, sizes)
    expected = naive_components(links.tolist(), sizes)
    nodes = list(expected)
    for a in nodes:
        for b in nodes[::7]:
            together = labels[a[0]][a[1]] == labels[b[0]][b[1]]
            assert together == (expected[a] == expected[b])


def test_a_long_chain_is_one_component():
    n = 3000
    chain = np.stack([np.arange(n), np.arange(n)], 1)
    chain = np.concatenate([chain, np.stack([np.arange(1, n), np.arange(n - 1)], 1)])
    left, right = components(chain[np.random.default_rng(0).permutation(len(chain))], [n, n])
    assert len(np.unique(np.concatenate([left, right]))) == 1


def test_kinds_give_the_distribution_of_drawing_clusters_one_by_one():
    generator = np.random.default_rng(1)
    sums = generator.integers(0, 3, (60, 2)).astype(float)
    fast = resample(sums, 4000, seed=0)
    slow = sums[generator.integers(0, 60, (4000, 60))].sum(axis=1)
    assert fast.mean(0) == pytest.approx(slow.mean(0), rel=0.02)
    assert fast.std(0) == pytest.approx(slow.std(0), rel=0.06)
    assert np.corrcoef(fast.T)[0, 1] == pytest.approx(np.corrcoef(slow.T)[0, 1], abs=0.06)


def test_cluster_sums_keep_groups_apart():
    sums = cluster_sums(
        [np.array([7, 7, 9]), np.array([9, 8])],
        [np.array([[1.0], [2.0], [4.0]]), np.array([[10.0, 1.0], [20.0, 2.0]])],
    )
    assert sums.tolist() == [[3, 0, 0], [0, 20, 2], [4, 10, 1]]


def test_nothing_to_draw_from_gives_no_interval():
    assert resample(np.ones((1, 2)), 100, 0) is None
    assert resample(np.ones((5, 2)), 0, 0) is None
    assert draw_kinds(np.array([], dtype=int), 10, 0) is None
    assert interval(np.array([np.nan, np.nan])) is None


def outcome(hits, captions):
    """Split in which image i is found by all of its captions or by none."""
    n = len(hits)
    images = torch.eye(n)
    links = torch.stack(
        [torch.arange(n).repeat_interleave(captions), torch.arange(n * captions)], 1
    )
    owner = torch.where(hits, torch.arange(n), (torch.arange(n) + 1) % n)
    return {"image": images, "text": images[owner].repeat_interleave(captions, 0)}, links


def test_captions_of_one_image_are_drawn_together():
    hits = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.5
    width = {}
    for captions in (1, 5):
        embeddings, links = outcome(hits, captions)
        found = retrieval(embeddings, links)["directions"]["text->image"]
        assert found["clusters"] == 200 and found["queries"] == 200 * captions
        low, high = found["r1_interval"]
        assert low < found["r1"] < high
        width[captions] = high - low
    # Five captions that agree tell no more than one: the interval must not shrink by sqrt 5.
    assert width[5] == pytest.approx(width[1], rel=0.1)
    share = hits.double().mean().item()
    assert width[1] == pytest.approx(100 * 3.92 * (share * (1 - share) / 200) ** 0.5, rel=0.12)


def test_one_component_gives_no_interval_and_seeds_repeat():
    embeddings = {m: torch.eye(6) for m in ("image", "text")}
    links = torch.tensor([(i, j) for i in range(6) for j in (i, (i + 1) % 6)])
    found = retrieval(embeddings, links)
    assert found["mean_r1_interval"] is None
    assert found["directions"]["image->text"]["r1_interval"] is None
    hits = torch.arange(40) % 3 == 0
    split = outcome(hits, 2)
    assert retrieval(*split, seed=3) == retrieval(*split, seed=3)
    assert retrieval(*split, seed=3) != retrieval(*split, seed=4)


def naive_paired(sums, shared, resamples):
    """Differences drawn one seed and one cluster at a time."""
    generator = np.random.default_rng(5)
    values = []
    for _ in range(resamples):
        common = generator.integers(0, len(sums[0]), len(sums[0]))
        of_seeds = []
        for own in sums:
            rows = common if shared else generator.integers(0, len(own), len(own))
            queries, ahead = own[rows].sum(axis=0).T
            of_seeds.append(np.mean(100 * ahead / queries))
        take = max(len(sums) - 1, 1)
        values.append(np.mean([of_seeds[generator.integers(len(sums))] for _ in range(take)]))
    return np.percentile(values, [2.5, 97.5])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_paired_interval_equals_the_naive_form(shared, seeds):
    generator = np.random.default_rng(2)
    queries = generator.integers(1, 4, (80, 2))  # clusters of several queries, two directions
    sums = []
    for number in range(seeds):
        ahead = generator.integers(-queries, queries + 1) + (generator.random((80, 2)) < number / 9)
        sums.append(np.stack([queries, ahead], axis=2).astype(float))
    found = paired_interval(sums, shared=shared, resamples=6000)
    wanted = naive_paired(sums, shared, 6000)
    assert found == pytest.approx(wanted, abs=0.08 * (wanted[1] - wanted[0]))


def test_the_paired_interval_of_equal_methods_is_nothing_and_of_one_cluster_unknown():
    same = np.stack([np.ones((30, 2)), np.zeros((30, 2))], axis=2)
    assert paired_interval([same, same], shared=True) == [0.0, 0.0]
    assert paired_interval([same[:1]], shared=True) is None


def test_pairing_narrows_the_interval_where_methods_err_alike():
    generator = np.random.default_rng(3)
    ours = generator.random(400) < 0.4
    theirs = np.where(generator.random(400) < 0.9, ours, generator.random(400) < 0.3)

    def sums(values):
        return np.stack([np.ones(400), values.astype(float)], axis=1)[:, None]

    low, high = paired_interval([sums(ours * 1.0 - theirs)], shared=True)
    alone = paired_interval([sums(ours)], shared=True)
    assert high - low < 0.7 * (alone[1] - alone[0])
