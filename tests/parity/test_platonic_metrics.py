"""The measures of similarity give the numbers of platonic-rep (`platonic_metrics/README.md`)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fusemix_core.errors import ConfigError
from fusemix_core.evaluation import similarity as sim

FOLDER = Path(__file__).parent / "platonic_metrics"
META = json.loads((FOLDER / "meta.json").read_text())
V = load_file(FOLDER / "vectors.safetensors")
A, B = V["in.a"], V["in.b"]


def close(got, name):
    rule, want = META["tolerance"], V[name]
    allowed = max(rule["atol"] + rule["rtol"] * want.abs().max(), rule["overrides"].get(name, 0))
    assert (torch.as_tensor(got, dtype=torch.float64) - want).abs().max() <= allowed, name


@pytest.mark.parametrize("k", META["hyper"]["ks"])
def test_neighbours(k):
    assert torch.equal(sim.neighbours(A, k), V[f"out.knn_a_{k}"])
    for name in ("mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn"):
        close(getattr(sim, name)(A, B, k), f"out.{name}_{k}")


def test_kernels():
    close(sim.hsic(sim.kernel(A), sim.kernel(B)), "out.hsic_biased")
    close(sim.hsic(sim.kernel(A), sim.kernel(B), unbiased=True), "out.hsic_unbiased")
    for name, sigma in (("linear", None), ("rbf", META["hyper"]["sig"])):
        close(sim.cka(A, B, sigma=sigma, unbiased=False), f"out.cka_{name}")
        close(sim.cka(A, B, sigma=sigma), f"out.cka_{name}_unbiased")


@pytest.mark.parametrize("k", [3, 8])
def test_cknna(k):
    close(sim.cknna(A, B, k), f"out.cknna_{k}")
    close(sim.cknna(A, B, k, unbiased=False), f"out.cknna_{k}_biased")


def test_svcca():
    a, b, dim = V["svcca.in.a"], V["svcca.in.b"], int(V["svcca.in.dim"])
    close(sim.svcca(a, b, dim), "svcca.out.exact")
    close(sim.svcca(a[:, :8], b[:, :8], 8), "svcca.out.full_rank_first8_exact")
    close(sim.svcca(a[:, :8], b[:, :8], 8), "svcca.out.full_rank_first8_three_seeds")


def test_layers_and_outliers():
    score, pair = sim.best_layers(V["layers.in.a"], V["layers.in.b"], int(V["layers.in.topk"]))
    close(score, "layers.out.best_score")
    assert list(pair) == V["layers.out.best_pair"].tolist()
    x, q = V["layers.in.a"], V["clip.in.q"].item()
    close(sim.clip_outliers(x, q, "exact"), "clip.out.exact")
    close(sim.clip_outliers(x, q), "clip.out.mean_of_row_quantiles")


def test_unrelated_latents_have_no_unbiased_similarity_however_wide():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(300, 1000, generator=draw, dtype=torch.float64) for _ in range(2))
    assert abs(sim.cka(a, b)) < 0.02 < 0.5 < sim.cka(a, b, unbiased=False)
    assert sim.cka(a, a) == pytest.approx(1, abs=1e-5) == sim.cknna(a, a)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: sim.neighbours(A, len(A)),
        lambda: sim.svcca(A, B, 10),
        lambda: sim.hsic(sim.kernel(A[:3]), sim.kernel(B[:3]), unbiased=True),
    ],
)
def test_too_few_items_are_told(wrong):
    with pytest.raises(ConfigError):
        wrong()
