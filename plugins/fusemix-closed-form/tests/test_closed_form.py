"""CSA and ASIF give the originals' numbers, Procrustes and ridge those of scipy and of the normal
equations; all keep the contracts. `parity/*/README.md` says where the vectors come from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_closed_form.asif import ASIFAdapter, ASIFAligner
from fusemix_closed_form.csa import CSAAligner
from fusemix_closed_form.linear import ProcrustesAligner, RidgeAligner
from safetensors.torch import load_file
from scipy.linalg import orthogonal_procrustes
from torch.nn.functional import normalize

from fusemix_core.config import Part, Recipe
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe
from fusemix_core.testing import check_adapter, check_aligner

PARITY = Path(__file__).parent / "parity"


def vectors(name):
    meta = json.loads((PARITY / name / "meta.json").read_text())
    return load_file(PARITY / name / "vectors.safetensors"), meta["hyper"], meta["tolerance"]


def close(got, want, tolerance):
    allowed = tolerance["atol"] + tolerance["rtol"] * want.abs().max()
    assert (got - want).abs().max() <= allowed


def pairs(a, b, rows=None):
    links = torch.arange(len(a))[:, None].repeat(1, 2) if rows is None else rows
    return PairedLatents({"a": ResidentLatents(a), "b": ResidentLatents(b)}, links)


def fitted(aligner, train, validation=None, dim=None, name="toy"):
    recipe = Recipe(name, Part(name), dim=dim)
    return aligner.fit(train, validation or train, recipe, FitContext())


def test_csa_is_the_originals():
    v, hyper, tolerance = vectors("csa")
    n = hyper["n"]
    train = pairs(v["in.train_a"], v["in.train_b"])
    for dim in (hyper["dim"], hyper["cut"]):
        adapters = fitted(CSAAligner(ridges=[0.0]), train, dim=dim)
        with torch.no_grad():
            a, b = (normalize(adapters[side](v[f"in.{side}"]), dim=1) for side in "ab")
        similarity = a @ b.T * v["out.weight"][0]  # in units of the largest weight
        close(similarity, v[f"out.similarity_{dim}"], tolerance)
        close(similarity.diagonal(), v[f"out.similarity_paired_{dim}"], tolerance)
    weights = adapters["a"].weights
    close(weights, v["out.correlation"][: hyper["cut"]] / v["out.correlation"][0], tolerance)
    ours = adapters["a"].variates(v["in.a"]).detach() * (n / (n - 1)) ** 0.5
    theirs = v["out.a"][:, : hyper["cut"]]
    signs = (ours * theirs).sum(0).sign()
    scale = theirs.norm() / ours.norm()
    close(ours * signs * scale, theirs, tolerance)


def test_asif_is_the_originals():
    v, hyper, tolerance = vectors("asif")

    def adapters(count, power):
        made = {}
        for side in "ab":
            anchors = v[f"in.anchors_{side}"][:count]
            made[side] = ASIFAdapter(anchors.shape[1], count, keep=hyper["keep"], power=power)
            made[side].double().anchors.data = anchors
        return made["a"], made["b"]

    for power in hyper["exps"]:
        a, b = adapters(hyper["anch"], power)
        similarity = a(v["in.a"]) @ normalize(b(v["in.b"]), dim=1).T
        close(similarity, v[f"out.similarity_power{power}"], tolerance)
        right = (similarity.argmax(1) == v["in.labels"]).double().mean()
        close(right, v[f"out.accuracy_power{power}"], tolerance)
    a, _ = adapters(hyper["anch"], 1)
    values, index = a(v["in.a"]).topk(hyper["keep"], dim=1)
    assert torch.equal(index, v["out.top_index_a"])
    close(values, v["out.top_value_a"], tolerance)
    a, b = adapters(v["in.fewer_anchors"].item(), hyper["exps"][1])
    similarity = a(v["in.a"]) @ normalize(b(v["in.b"]), dim=1).T
    close(similarity, v["out.similarity_fewer_anchors"], tolerance)


def drawn(n=80, da=9, db=6, seed=0):
    """Two float32 views of shared causes."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(n, 5, generator=generator)
    views = [
        causes @ torch.randn(5, d, generator=generator) + torch.randn(n, d, generator=generator)
        for d in (da, db)
    ]
    return pairs(*views)


def test_asif_takes_training_pairs_as_anchors_and_chooses_on_validation():
    train, validation = drawn(), drawn(seed=1)
    adapters = fitted(ASIFAligner(anchors=30, keeps=[5, 50], powers=[1, 3]), train, validation)
    kept = adapters["a"].options
    assert kept["keep"] in (5, 30) and kept["power"] in (1, 3)
    rows = {m: normalize(train.tables[m].latents, dim=1) for m in "ab"}
    of = (rows["a"] @ adapters["a"].anchors.T).argmax(0)
    torch.testing.assert_close(adapters["a"].anchors, rows["a"][of])
    torch.testing.assert_close(adapters["b"].anchors, rows["b"][of])  # partners, in one order


def test_procrustes_is_the_nearest_rotation():
    train = drawn(da=7, db=7)
    adapters = fitted(ProcrustesAligner(), train, dim=7)
    u, v = (adapters[m].standard(train.tables[m].latents).double() for m in "ab")
    u, v = u - u.mean(0), v - v.mean(0)
    rotation, _ = orthogonal_procrustes(u.numpy(), v.numpy())
    want = u @ torch.from_numpy(rotation) @ v.T
    with torch.no_grad():
        x, y = (adapters[m](train.tables[m].latents).double() for m in "ab")
    torch.testing.assert_close(x @ y.T, want, rtol=1e-3, atol=1e-4)
    eye = adapters["a"].weight.T @ adapters["a"].weight
    torch.testing.assert_close(eye, torch.eye(7), rtol=0, atol=1e-4)


@pytest.mark.parametrize("target", ["", "a"])
def test_ridge_solves_the_normal_equations_and_leaves_its_target(target):
    train = drawn()
    adapters = fitted(RidgeAligner(target=target, ridges=[3.0]), train)
    fixed, moved = ("a", "b") if target else ("b", "a")
    rows = {m: adapters[m].standard(train.tables[m].latents).double() for m in "ab"}
    rows = {m: r - r.mean(0) for m, r in rows.items()}
    x, n = rows[moved], len(train)
    r = 3.0 * (x.T @ x / n).trace() / n
    want = torch.linalg.solve(x.T @ x / n + r * torch.eye(x.shape[1]), x.T @ rows[fixed] / n)
    with torch.no_grad():
        got = {m: adapters[m](train.tables[m].latents).double() for m in "ab"}
    torch.testing.assert_close(got[moved], x @ want, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got[fixed], rows[fixed], rtol=1e-3, atol=1e-4)


def test_copies_and_flat_columns_are_solvable():
    train = drawn(n=12, da=30, db=20)
    train.tables["a"].latents[:, 3] = 1.0
    train.tables["b"].latents[1] = train.tables["b"].latents[0]
    for aligner in (CSAAligner(), ProcrustesAligner(), RidgeAligner(), ASIFAligner()):
        for adapter, table in zip(
            fitted(aligner, train).values(), train.tables.values(), strict=True
        ):
            assert adapter(table.latents).isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: CSAAligner(ridges=[]),
        lambda: ASIFAligner(powers=[0]),
        lambda: ProcrustesAligner(dim=0),
        lambda: RidgeAligner(ridges=[0.0]),
        lambda: fitted(RidgeAligner(target="sound"), drawn()),
    ],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(FusemixError):
        wrong()


def test_a_csa_adapter_needs_columns_for_its_sides():
    from fusemix_closed_form.csa import CSAAdapter

    with pytest.raises(ConfigError, match="2 columns"):
        CSAAdapter(5, 2)


@pytest.mark.parametrize("name", ["csa", "asif", "procrustes", "ridge"])
def test_aligners_keep_the_contract(name):
    check_aligner(name).raise_if_failed()


def test_adapters_keep_the_contract():
    check_adapter("csa").raise_if_failed()
    check_adapter("asif").raise_if_failed()


@pytest.mark.parametrize("name", ["csa", "asif", "procrustes", "ridge"])
def test_recipes_fit_with_the_aligner_they_name(name):
    recipe = find_recipe(name, [])
    aligner = registry.build("aligner", recipe.aligner)
    adapters = aligner.fit(drawn(), drawn(seed=1), recipe, FitContext())
    assert set(adapters) == {"a", "b"} and recipe.name == name


class Counted:
    """A table that remembers which items it was asked for."""

    def __init__(self, latents):
        self.latents, self.asked = latents, []

    dim = property(lambda self: self.latents.shape[1])

    def __len__(self):
        return len(self.latents)

    def rows(self, index):
        self.asked.append(index)
        return self.latents[index]


@pytest.mark.slow
@pytest.mark.parametrize("aligner", [CSAAligner, ProcrustesAligner, RidgeAligner])
def test_all_pairs_are_taken_in_one_pass_that_is_told(aligner, monkeypatch):
    monkeypatch.setattr("fusemix_core.aligners.features._SAMPLE", 10)
    told = []

    class Followed(Callback):
        def on_pairs(self, done, total):
            told.append((done, total))

    train = drawn()
    train = PairedLatents({m: Counted(t.latents) for m, t in train.tables.items()}, train.links)
    aligner().fit(train, drawn(seed=1), Recipe("r", Part("r")), FitContext(callbacks=[Followed()]))
    assert told == [(0, 80), (80, 80)]
    for table in train.tables.values():
        passes = [ids for ids in table.asked if len(ids) > 10]
        assert torch.cat(passes).tolist() == list(range(80))
