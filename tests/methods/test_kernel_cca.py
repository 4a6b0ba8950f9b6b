"""Kernel CCA at sizes and on data that its shortcuts could get wrong."""

import subprocess
import sys
from functools import partial

import pytest
import torch

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.aligners import cca, whitened
from fusemix_core.aligners.canonical import solve
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.crosses import Rows, rows_pay
from fusemix_core.aligners.moments import Moments
from fusemix_core.aligners.recalls import embedded, mean_recall, recalls
from fusemix_core.aligners.whitened import Whitened, factor
from fusemix_core.config import Part, Recipe
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents

RECIPE = Recipe("r", Part("cca"))
DIMS = (24, 16, 20, 12, 18)


def pairs(n=200, count=2, seed=0, links=None):
    """`count` modalities of five hidden causes with noise; row i links the items i."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.Generator().manual_seed(99)
    causes = torch.randn(n, 5, generator=g)
    tables = {
        f"m{k}": ResidentLatents(
            causes @ torch.randn(5, d, generator=mix) + 0.5 * torch.randn(n, d, generator=g)
        )
        for k, d in enumerate(DIMS[:count])
    }
    if links is None:
        links = torch.arange(n)[:, None].repeat(1, count)
    return PairedLatents(tables, links)


def fit(train, validation, **options):
    fitted = CCAAligner(**options).fit(train, validation, RECIPE, FitContext())
    assert all(p.isfinite().all() for a in fitted.values() for p in a.parameters())
    return fitted


def found(adapters, data):
    return mean_recall(recalls(adapters, data))


def moments(count=3, n=300, keep=0):
    data = pairs(n, count)
    some = Moments(list(data.dims.values()), keep=keep)
    there = torch.ones(n, count, dtype=torch.bool)
    there[: n // 4, 0] = False
    rows = [t.latents if keep else t.latents.double() for t in data.tables.values()]
    for part in torch.arange(n).split(n // 2):
        some.update([own[part] for own in rows], there[part])
    return some


def test_first_features_have_the_moments_they_have_among_all():
    everything = moments()
    some = everything.first(14)
    assert some.dims == (14, 14, 14)
    for k in range(3):
        assert torch.equal(some.mean(k), everything.mean(k)[:14])
        assert some.variance(k) == pytest.approx(some.covariance(k, k).trace().item())
        for m in range(3):
            torch.testing.assert_close(some.covariance(k, m), everything.covariance(k, m)[:14, :14])


def test_thin_blocks_are_multiplied_as_by_the_whole_matrix():
    wide = Whitened.of(moments(), [0.1, 0.2, 0.3], [None] * 3, wide=True)
    block = torch.randn(len(wide), 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide @ block, wide.blocks() @ block, rtol=1e-4, atol=1e-4)
    part = block[: DIMS[0]]
    torch.testing.assert_close(
        wide.times(1, 0, part), wide.cross(0, 1).T @ part, rtol=1e-4, atol=1e-4
    )


def test_rows_that_are_kept_multiply_as_the_cross_covariances_they_make():
    want, got = (moments(keep=keep).crosses(torch.float32) for keep in (0, 300))
    assert isinstance(got, Rows) and list(got.held) == list(want.held)
    g = torch.Generator().manual_seed(0)
    blocks = [torch.randn(d, 7, generator=g) for d in DIMS[:3]]
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    for k, m in want.held:
        close(got.matrix(k, m), want.matrix(k, m))
        for one, other in ((k, m), (m, k)):
            close(got.times(one, other, blocks[other]), want.times(one, other, blocks[other]))
            few = blocks[other][:5]
            close(got.times(one, other, few), want.times(one, other, few))
    for own, other in zip(got.sums(blocks), want.sums(blocks), strict=True):
        close(own, other)


def test_kept_rows_have_the_moments_of_first_features():
    want, got = moments().first(14), moments(keep=300).first(14)
    for k in range(3):
        for m in range(3):
            close = {"rtol": 1e-4, "atol": 1e-4}
            torch.testing.assert_close(got.covariance(k, m), want.covariance(k, m), **close)


def test_rows_are_kept_for_many_landmarks_and_modalities_that_fit_into_memory():
    assert rows_pay(10_000, [4_096] * 2, 384) and rows_pay(10_000, [4_096] * 5, 384)
    assert not rows_pay(10_000, [2_000] * 2, 384)
    assert not rows_pay(100_000, [4_096] * 2, 384)


@pytest.mark.parametrize("count", [2, 3])
def test_iterations_that_begin_with_maps_of_few_landmarks_find_the_dense_answer(count, monkeypatch):
    monkeypatch.setattr(cca, "FEW", 60)
    monkeypatch.setattr(cca, "MANY", 300)
    monkeypatch.setattr(cca, "rows_pay", lambda *_: True)
    monkeypatch.setattr(whitened, "_SHORT", 10)
    train, validation = pairs(700, count), pairs(100, count, seed=1)
    options = {"landmarks": 600, "dim": 5, "ridges": [3.0], "powers": [1.0]}
    dense = fit(train, validation, **options)
    monkeypatch.setattr("fusemix_core.aligners.canonical._DENSE", 300)
    iterated = fit(train, validation, **options)
    cosines = []
    for adapters in (iterated, dense):
        x, y = list(embedded(adapters, validation).values())[:2]
        cosines.append((x @ y.T).flatten())
    assert torch.corrcoef(torch.stack(cosines))[0, 1] > 0.9995


@pytest.mark.parametrize(
    ("scores", "top", "order"),
    [
        ({3: 0.2, 1: 0.3, 0.3: 0.4, 10: 0.9}, 0.3, [3, 1, 0.3]),
        ({3: 0.2, 1: 0.3, 0.3: 0.1, 10: 0.9}, 1, [3, 1, 0.3]),
        ({3: 0.2, 1: 0.1, 0.3: 0.9, 10: 0.3}, 10, [3, 1, 10]),
    ],
)
def test_ridges_are_tried_as_long_as_they_find_more(scores, top, order):
    tried = []

    class Scored(CCAAligner):
        def _tried(self, problem, ridge, validation, start=()):
            tried.append(ridge)
            return cca.Tried(ridge, None, [(1.0, {("a", "b"): (scores[ridge],)})])

    assert Scored(ridges=list(scores))._chosen(None, None).ridge == top
    assert tried == order


@pytest.mark.parametrize("count", [2, 3])
def test_a_penalty_is_a_change_of_coordinates(count):
    """Features R g with the penalty R Rᵀ are features g with the identity."""
    plain = moments(count)
    g = torch.Generator().manual_seed(1)
    turns = [torch.randn(d, d, generator=g, dtype=torch.float64) for d in plain.dims]
    turned = moments(count)
    for k in range(count):
        for m in range(k, count):
            second = plain._second[k, m]
            second = second.triu() + second.triu(1).T if k == m else second
            turned._second[k, m] = turns[k] @ second @ turns[m].T
            turned._first[k, m] = turns[k] @ plain._first[k, m]
            turned._first[m, k] = turns[m] @ plain._first[m, k]
    ridges = [0.5, 0.3, 0.2][:count]
    want = solve(plain, ridges, 4)
    got = solve(turned, ridges, 4, penalties=[t @ t.T for t in turns])
    torch.testing.assert_close(got.correlations, want.correlations)
    for k in range(count):
        torch.testing.assert_close(got.energies[k], want.energies[k])
        along = (turns[k].T @ got.maps[k] * want.maps[k]).sum(0) / want.maps[k].square().sum(0)
        torch.testing.assert_close(along.abs(), torch.ones(4, dtype=torch.float64))


def test_energies_are_variances_of_the_embeddings():
    data = moments(2)
    solved = solve(data, [0.5, 0.3], 4)
    for k in range(2):
        want = (data.covariance(k, k) @ solved.maps[k] * solved.maps[k]).sum(0)
        torch.testing.assert_close(solved.energies[k], want)


def test_a_float32_factor_is_used_only_where_it_whitens(monkeypatch):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 60, generator=g, dtype=torch.float64)
    good, bad = (x.T @ x / len(x) for x in (rows, rows[:, :1] + 1e-5 * rows))
    used = []
    monkeypatch.setattr(whitened, "_SHORT", 10)
    monkeypatch.setattr(
        whitened, "_whitens", lambda *a, real=whitened._whitens: used.append(real(*a)) or used[-1]
    )
    for covariance, safe in ((good, True), (bad, False)):
        lower = factor(covariance.clone(), 1e-10, None, wide=True).double()
        assert safe == (len(used) > 0 and used[-1])
        assert (lower @ lower.T - covariance).abs().max() < 1e-5
        used.clear()


def test_the_ridge_that_few_landmarks_choose_gives_the_maps_of_that_ridge(monkeypatch):
    monkeypatch.setattr(cca, "FEW", 40)
    monkeypatch.setattr(cca, "MANY", 50)
    train, validation = pairs(), pairs(60, seed=1)
    chosen = fit(train, validation, landmarks=150, dim=5, ridges=[1e4, 1.0], powers=[1.0])
    alone = fit(train, validation, landmarks=150, dim=5, ridges=[1.0], powers=[1.0])
    for m, adapter in chosen.items():
        torch.testing.assert_close(adapter.weight, alone[m].weight)
    assert len(chosen["m0"].landmarks) == 150


def test_first_landmarks_give_the_first_features():
    adapter = KernelAdapter(6, 3, landmarks=20)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    adapter.prepare(x)
    assert torch.allclose(adapter.first(8).features(x), adapter.features(x)[:, :8], atol=1e-6)


@pytest.mark.parametrize("landmarks", [400, pytest.param(1_600, marks=pytest.mark.long)])
def test_as_many_landmarks_as_iterations_are_for_find_the_dense_answer(landmarks, monkeypatch):
    """Solved by iterations in float32 and densely in float64."""
    if landmarks == 400:
        monkeypatch.setattr("fusemix_core.aligners.canonical._DENSE", 375)
    train, validation = pairs(landmarks + 100), pairs(100, seed=1)
    options = {"landmarks": landmarks, "dim": 5, "ridges": [3.0], "powers": [1.0]}
    iterated = fit(train, validation, **options)
    monkeypatch.setattr("fusemix_core.aligners.canonical._DENSE", 1_700)
    dense = fit(train, validation, **options)
    cosines = []
    for adapters in (iterated, dense):  # turns of directions that correlate alike change nothing
        x, y = embedded(adapters, validation).values()
        cosines.append((x @ y.T).flatten())
    assert torch.corrcoef(torch.stack(cosines))[0, 1] > 0.9995


def test_ten_labels():
    train, validation = pairs(), pairs(60, seed=1)
    for data in (train, validation):
        data.links[:, 1] %= 10
        data.tables["m0"].latents[:] += 5 * data.tables["m0"].latents[data.links[:, 1]]
    assert found(fit(train, validation, dim=8), validation) > 0.3


def test_one_concept_of_hundreds_of_items():
    train, validation = pairs(400), pairs(60, seed=1)
    train.links[:300, 1] = 0
    assert found(fit(train, validation, dim=4), validation) > 0.3


def test_duplicates_beside_other_items():
    train, validation = pairs(), pairs(60, seed=1)
    for table in train.tables.values():
        table.latents[100:] = table.latents[:100]
    assert found(fit(train, validation, dim=4), validation) > 0.3


@pytest.mark.parametrize("landmarks", [0, 150])
def test_latents_that_never_vary_are_solved(landmarks):
    train, validation = pairs(), pairs(60, seed=1)
    for data in (train, validation):
        data.tables["m1"].latents[:] = 1.0
    fit(train, validation, dim=4, landmarks=landmarks)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 19])
def test_a_handful_of_pairs(n):
    """Fewer than the width, and as few as two."""
    fitted = fit(pairs(n), pairs(60, seed=1))
    assert fitted["m0"].weight.shape[1] <= max(n - 1, 1)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_modalities_with_gaps(count):
    train, validation = pairs(300, count), pairs(60, count, seed=1)
    lacking = torch.rand(300, count, generator=torch.Generator().manual_seed(2)) < 0.4
    lacking[:, :2] &= ~lacking[:, :2].all(1, keepdim=True)
    train.links[lacking] = -1
    assert found(fit(train, validation, dim=4), validation) > 0.3


@pytest.mark.parametrize("rows", [1, 2])
def test_a_validation_split_that_tells_little(rows):
    fitted = fit(pairs(), pairs(rows, seed=1), dim=4)
    assert found(fitted, pairs(60, seed=2)) > 0.3


@pytest.mark.slow
def test_a_saved_map_loads_without_torch_dynamo():
    """A normal distribution on the meta device imports it: seconds for every command."""
    code = (
        "import sys, torch\n"
        "from fusemix_core.adapters.kernel import KernelAdapter\n"
        "with torch.device('meta'): KernelAdapter(8, 4, landmarks=3)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
