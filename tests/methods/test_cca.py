"""The closed form against direct generalised eigenproblems (scipy), and the adapter it fits."""

import numpy as np
import pytest
import scipy.linalg
import torch

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.adapters.standardised import skewed
from fusemix_core.aligners import canonical
from fusemix_core.aligners.canonical import solve, top_eigenpairs, top_singular
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.moments import Moments
from fusemix_core.aligners.recalls import mean_recall, recalls
from fusemix_core.config import Part, Recipe
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents

DIMS = (9, 7, 6)
RIDGES = (0.5, 0.3, 0.2)
RECIPE = Recipe("r", Part("cca"))


def world(n=200, seed=0, dims=DIMS):
    """Float64 views of one hidden factor, and which entries are there (two or more a row)."""
    g = torch.Generator().manual_seed(seed)
    factor = torch.randn(n, 4, generator=g, dtype=torch.float64)
    views = [
        factor @ torch.randn(4, d, generator=g, dtype=torch.float64)
        + torch.randn(n, d, generator=g, dtype=torch.float64)
        + d
        for d in dims
    ]
    present = torch.rand(n, len(dims), generator=g) > 0.3
    present[present.sum(1) < 2] = True
    return views, present


def moments_of(views, present, chunk=64):
    moments = Moments([v.shape[1] for v in views])
    for i in range(0, len(present), chunk):
        moments.update([v[i : i + chunk] for v in views], present[i : i + chunk])
    return moments


def naive_covariance(x, y, both):
    x, y = x[both].numpy(), y[both].numpy()
    return (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)


def test_moments_in_chunks_are_the_covariances():
    views, present = world()
    moments = moments_of(views, present)
    for k in range(3):
        assert torch.allclose(moments.mean(k), views[k][present[:, k]].mean(0))
        for m in range(3):
            both = present[:, k] & present[:, m]
            want = naive_covariance(views[k], views[m], both)
            np.testing.assert_allclose(moments.covariance(k, m).numpy(), want, atol=1e-10)


def test_two_modalities_are_regularised_cca():
    (x, y), _ = world(dims=(9, 7))
    everything = torch.ones(len(x), 2, dtype=torch.bool)
    solved = solve(moments_of([x, y], everything), RIDGES[:2], dim=5)
    cxx, cyy, cxy = (naive_covariance(a, b, everything[:, 0]) for a, b in ((x, x), (y, y), (x, y)))
    cxx, cyy = cxx + 0.5 * np.eye(9), cyy + 0.3 * np.eye(7)
    values, vectors = scipy.linalg.eigh(cxy @ np.linalg.solve(cyy, cxy.T), cxx)
    np.testing.assert_allclose(solved.correlations, values[::-1][:5] ** 0.5, atol=1e-9)
    for i, want in enumerate(vectors[:, ::-1][:, :5].T):
        got = solved.maps[0][:, i].numpy()
        np.testing.assert_allclose(got * np.sign(got @ cxx @ want), want, atol=1e-7)
    for own, c in zip(solved.maps, (cxx, cyy), strict=True):
        np.testing.assert_allclose(own.T.numpy() @ c @ own.numpy(), np.eye(5), atol=1e-9)


def test_three_modalities_with_missing_entries_are_the_block_eigenproblem():
    views, present = world()
    solved = solve(moments_of(views, present), RIDGES, dim=5)
    off = np.cumsum([0, *DIMS])
    left, right = np.zeros((22, 22)), np.zeros((22, 22))
    for k in range(3):
        for m in range(3):
            c = naive_covariance(views[k], views[m], present[:, k] & present[:, m])
            block = np.s_[off[k] : off[k + 1], off[m] : off[m + 1]]
            if k == m:
                right[block] = c + RIDGES[k] * np.eye(DIMS[k])
            else:
                left[block] = c
    values, vectors = scipy.linalg.eigh(left, right)
    np.testing.assert_allclose(solved.correlations, values[::-1][:5] / 2, atol=1e-9)
    stacked = torch.cat(solved.maps).numpy() / 3**0.5
    along = np.abs((stacked * (right @ vectors[:, ::-1][:, :5])).sum(0))
    np.testing.assert_allclose(along, 1, atol=1e-7)


def test_modalities_that_never_meet_share_a_space_through_a_third():
    views, present = world(n=400)
    present[:] = True
    present[::2, 0] = False
    present[1::2, 1] = False  # 0 and 1 never in one row
    solved = solve(moments_of(views, present), RIDGES, dim=3)
    a, b = (
        torch.nn.functional.normalize((v - v.mean(0)) @ m, dim=1)
        for v, m in zip(views[:2], solved.maps[:2], strict=True)
    )
    cosines = a @ b.T
    assert cosines.diagonal().mean() > 0.6
    assert cosines.mean().abs() < 0.1


@pytest.fixture(params=[400, pytest.param(1_600, marks=pytest.mark.long)])
def wide(request, monkeypatch):
    """An order above those that are solved densely, which are lower here than in use; in the long
    form as in use."""
    if request.param == 400:
        monkeypatch.setattr(canonical, "_DENSE", 375)
    return request.param


def test_krylov_space_finds_the_dense_answer(wide):
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(wide, wide, generator=g, dtype=torch.float64)).Q
    values = 0.98 ** torch.arange(wide - 1, -1, -1, dtype=torch.float64)
    matrix = basis * values @ basis.T
    got, vectors = top_eigenpairs(matrix, 10, seed=0)
    assert torch.allclose(got, values.flip(0)[:10], atol=5e-3)
    residual = matrix @ vectors - vectors * got
    assert residual.norm(dim=0).max() < 0.05


@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_top_singular_values_and_vectors_are_those_of_a_full_decomposition(shape):
    top_singular_values_are_right(shape)


@pytest.mark.parametrize("more", [(300, 100), (0, 100)])
def test_top_singular_values_and_vectors_of_wide_matrices(wide, more):
    top_singular_values_are_right((wide + more[0], wide + more[1]))


def top_singular_values_are_right(shape):
    g = torch.Generator().manual_seed(0)
    short = min(shape)
    left = torch.linalg.qr(torch.randn(shape[0], short, generator=g, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(shape[1], short, generator=g, dtype=torch.float64)).Q
    values = 0.9 ** torch.arange(short, dtype=torch.float64)
    u, s, v = top_singular((left * values) @ right.T, 12, seed=0)
    torch.testing.assert_close(s, values[:12], rtol=1e-4, atol=0)
    for got, want in ((u, left), (v, right)):
        assert ((got * want[:, :12]).sum(0).abs() > 0.999).all()


def test_wide_features_in_float32_give_the_maps_of_float64(wide):
    (x, y), _ = world(n=900 + wide, dims=(wide, wide - 20))
    everything = torch.ones(len(x), 2, dtype=torch.bool)
    ridges = [3 * v.var(0).sum().item() / len(x) for v in (x, y)]
    solved = solve(moments_of([x.float(), y.float()], everything, 512), ridges, dim=4)
    cxx, cyy, cxy = (naive_covariance(a, b, everything[:, 0]) for a, b in ((x, x), (y, y), (x, y)))
    cxx[np.diag_indices(len(cxx))] += ridges[0]
    cyy[np.diag_indices(len(cyy))] += ridges[1]
    lx, ly = np.linalg.cholesky(cxx), np.linalg.cholesky(cyy)
    cross = scipy.linalg.solve_triangular(lx, cxy, lower=True)
    cross = scipy.linalg.solve_triangular(ly, cross.T, lower=True).T
    left, values, _ = np.linalg.svd(cross)
    np.testing.assert_allclose(solved.correlations, values[:4], atol=1e-4)
    want = torch.from_numpy(scipy.linalg.solve_triangular(lx.T, left[:, :4]))
    centred = x - x.mean(0)
    along = torch.nn.functional.cosine_similarity(
        centred @ solved.maps[0], centred @ want, dim=0
    ).abs()
    assert (along > 0.999).all()


class Told(Callback):
    """Remembers the evaluations; being told anything else is a failure."""

    def __init__(self):
        self.evaluations = []

    def on_evaluation(self, step, metrics):
        self.evaluations.append((step, dict(metrics)))

    def on_start(self, total_steps):
        raise AssertionError("a closed form has no steps")


def test_each_better_map_is_told_linear_ones_first():
    train, validation = paired()
    told = Told()
    context = FitContext(callbacks=[told])
    adapters = CCAAligner(dim=4, landmarks=None).fit(train, validation, RECIPE, context)
    scores = [metrics["score"] for _, metrics in told.evaluations]
    assert scores == sorted(set(scores)) and {step for step, _ in told.evaluations} == {0}
    assert told.evaluations[0][1]["landmarks"] == 0
    assert mean_recall(recalls(adapters, validation)) == pytest.approx(scores[-1])


def paired(n=300, seed=0, two=False):
    views, _ = world(n, seed, DIMS[:2] if two else DIMS)
    tables = {f"m{k}": ResidentLatents(v.float()) for k, v in enumerate(views)}
    links = torch.arange(n).repeat(len(views), 1).T.clone()
    links[: n // 3, 2:] = -1
    data = PairedLatents(tables, links)
    return data.select(torch.arange(0, 240)), data.select(torch.arange(240, n))


def test_aligner_fits_better_than_chance_and_leaves_eval_adapters():
    train, validation = paired()
    adapters = CCAAligner(dim=4).fit(train, validation, Recipe("r", Part("cca")), FitContext())
    assert list(adapters) == ["m0", "m1", "m2"]
    assert not any(a.training for a in adapters.values())
    assert mean_recall(recalls(adapters, validation)) > 0.35


def test_aligner_is_deterministic_and_its_choices_matter():
    train, validation = paired()
    recipe = Recipe("r", Part("cca"))
    a, b = (CCAAligner(dim=4).fit(train, validation, recipe, FitContext(seed=3)) for _ in "ab")
    for m in a:
        for name, value in a[m].state_dict().items():
            assert torch.equal(value, b[m].state_dict()[name])


def test_recipe_dim_is_limited_by_the_data():
    train, validation = paired()
    few = train.select(torch.arange(100, 104))
    adapters = CCAAligner().fit(few, validation, Recipe("r", Part("cca")), FitContext())
    assert adapters["m0"].weight.shape[1] <= 4


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"ridges": []},
        {"ridges": [0.0]},
        {"powers": []},
        {"landmarks": -1},
        {"kernel_pairs": 0},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="cca needs"):
        CCAAligner(**options)


def test_similarities_are_those_of_the_formula():
    g = torch.Generator().manual_seed(0)
    x, others = torch.randn(50, 6, generator=g), torch.randn(9, 6, generator=g)
    adapter = KernelAdapter(6, 2, landmarks=20)
    adapter.prepare(x)
    u, v = (
        (torch.nn.functional.normalize(t, dim=1) - adapter.centre) / adapter.scale
        for t in (others, x[:20])
    )
    want = 1 / (1 + (u.double()[:, None] - v.double()).square().sum(2))
    want = want + adapter.linear * u.double() @ v.double().T
    torch.testing.assert_close(adapter.features(others), want.float(), atol=1e-5, rtol=0)


def test_kernel_maps_are_kernel_cca_solved_directly():
    """Against the dual problem in numpy: with centred kernels K and P = K (K + n r)⁻¹, correlations
    squared are the eigenvalues of P_x P_y, and training embeddings the eigenvectors."""
    train, validation = paired(two=True)
    n, options = len(train), {"ridges": [2.0], "powers": [0.0]}
    fitted = CCAAligner(dim=3, landmarks=n, **options).fit(train, validation, RECIPE, FitContext())
    shares, ridges = [], []
    for modality, adapter in fitted.items():
        x = train.tables[modality].rows(train.linked(modality))
        u = (torch.nn.functional.normalize(x, dim=1) - adapter.centre) / adapter.scale
        u = u.double().numpy()
        kernel = 1 / (1 + np.square(u[:, None] - u).sum(2)) + adapter.linear * u @ u.T
        centre = np.eye(n) - 1 / n
        kernel = centre @ kernel @ centre
        ridges.append(2.0 * np.trace(kernel) / n)  # n r = n · ridge · tr(C) / n, tr(C) = tr(K) / n
        shares.append(kernel @ np.linalg.inv(kernel + ridges[-1] * np.eye(n)))
    values, vectors = np.linalg.eig(shares[0] @ shares[1])
    top = np.argsort(-values.real)[:3]
    got = fitted["m0"](train.tables["m0"].rows(train.linked("m0"))).detach().double()
    got = got - got.mean(0)
    along = torch.nn.functional.cosine_similarity(
        got, torch.from_numpy(vectors.real[:, top].copy()), dim=0
    )
    assert (along.abs() > 0.999).all()
    other = fitted["m1"](train.tables["m1"].rows(train.linked("m1"))).detach().double()
    other = other - other.mean(0)
    naive = torch.from_numpy(shares[1] @ vectors.real[:, top])
    assert (torch.nn.functional.cosine_similarity(other, naive, dim=0).abs() > 0.999).all()


def test_few_landmarks_come_near_all_of_them():
    train, validation = paired(two=True)

    def embedded(landmarks):
        cca = CCAAligner(dim=3, landmarks=landmarks, ridges=[3.0], powers=[1.0])
        fitted = cca.fit(train, validation, RECIPE, FitContext())
        rows = [a(validation.tables[m].rows(validation.linked(m))) for m, a in fitted.items()]
        x, y = (torch.nn.functional.normalize(r, dim=1) for r in rows)
        return (x @ y.T).detach().flatten()

    exact, near = embedded(240), embedded(200)
    assert torch.corrcoef(torch.stack([exact, near]))[0, 1] > 0.98


def test_copies_of_an_item_break_nothing():
    train, validation = paired(two=True)
    for table in train.tables.values():
        table.latents[1:20] = table.latents[0]
    fitted = CCAAligner(dim=4, landmarks=240).fit(train, validation, RECIPE, FitContext())
    assert all(p.isfinite().all() for a in fitted.values() for p in a.parameters())


def test_skewed_latents_are_rooted():
    g = torch.Generator().manual_seed(0)
    rectified = torch.randn(500, 8, generator=g).clamp(min=0).pow(2)
    assert skewed(rectified) and not skewed(torch.randn(500, 8, generator=g))
    adapter = KernelAdapter(8, 2)
    adapter.prepare(rectified)
    assert adapter.power == 0.5


def test_start_from_copies_map_and_size():
    train, validation = paired()
    recipe = Recipe("r", Part("cca"))
    fitted = CCAAligner(dim=4, landmarks=16).fit(train, validation, recipe, FitContext())["m0"]
    adapter = KernelAdapter(9, 4)
    adapter.start_from(fitted)
    x = torch.randn(5, 9)
    assert torch.equal(adapter.eval()(x), fitted(x))
    assert adapter.options == {"landmarks": 16, "linear": 0.2}
    again = KernelAdapter(9, 4, **adapter.options)
    again.load_state_dict(adapter.state_dict())
    for other in (LinearAdapter(9, 4), KernelAdapter(9, 5)):
        with pytest.raises(ConfigError, match="start from"):
            adapter.start_from(other)


def test_labels_that_are_fewer_than_the_width_are_no_fault():
    train, validation = paired(two=True)
    for data in (train, validation):
        data.links[:, 1] %= 4
    fitted = CCAAligner(dim=6, landmarks=240).fit(train, validation, RECIPE, FitContext())
    assert fitted["m0"].weight.shape[1] == 4
