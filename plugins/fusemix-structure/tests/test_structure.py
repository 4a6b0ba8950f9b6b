"""STRUCTURE gives the original's numbers: see `parity/structure/README.md`."""

import json
import math
from pathlib import Path

import pytest
import torch
from fusemix_structure import metrics
from fusemix_structure.head import LowRankResidualAdapter
from fusemix_structure.objective import StructureObjective
from fusemix_structure.regulariser import structure
from safetensors.torch import load_file
from torch.nn.functional import normalize

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Training
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Batch
from fusemix_core.mixups.none import NoMixup
from fusemix_core.step import Step
from fusemix_core.testing import check_adapter, check_objective

FOLDER = Path(__file__).parent / "parity/structure"
META = json.loads((FOLDER / "meta.json").read_text())
HYPER = META["hyper"]
V = load_file(FOLDER / "vectors.safetensors")
CASES = {
    "level1_none": {},
    "level1_inverse": {"weighting": "inverse"},
    "level2_none": {"levels": 2},
    "level2_inverse": {"levels": 2, "weighting": "inverse"},
    "level3_none": {"levels": 3},
    "level3_inverse": {"levels": 3, "weighting": "inverse"},
    "level2_none_rbf": {"levels": 2, "kernel": "rbf"},
    "level2_inverse_center_none": {"levels": 2, "weighting": "inverse", "centring": "none"},
    "level2_inverse_center_standard": {"levels": 2, "weighting": "inverse", "centring": "standard"},
    "level2_inverse_center_first": {"levels": 2, "weighting": "inverse", "centre_first": True},
    "level3_none_margin": {"levels": 3, "margin": HYPER["margin"]},
}


def close(got, name, want=None):
    rule, want = META["tolerance"], V[name] if want is None else want
    allowed = max(rule["atol"] + rule["rtol"] * want.abs().max(), rule["overrides"].get(name, 0))
    assert (torch.as_tensor(got, dtype=torch.float64) - want).abs().max() <= allowed, name


@pytest.mark.parametrize("case", CASES)
def test_regulariser(case):
    x, z = V["reg.in.original"], V["reg.in.aligned"].clone().requires_grad_()
    found = structure(x, z, temperature=V["reg.in.tau"].item(), **CASES[case])
    found.backward()
    close(found.detach(), f"reg.out.{case}")
    if f"reg.grad_aligned.{case}" in V:
        close(z.grad, f"reg.grad_aligned.{case}")
    js = structure(x, z, temperature=V["reg.in.tau"].item(), divergence="js", **CASES[case])
    # The stored value takes logarithms without the original's 1e-12.
    assert math.isclose(js.item(), V[f"reg.true_js.{case}"].item(), rel_tol=1e-6, abs_tol=1e-8)


@pytest.mark.parametrize("centre_first", [False, True])
def test_standardising_leaves_out_columns_that_do_not_vary(centre_first):
    draw = torch.Generator().manual_seed(0)
    latents, embeddings = torch.randn(6, 4, generator=draw), torch.randn(6, 3, generator=draw)
    how = {"centring": "standard", "centre_first": centre_first}
    if not centre_first:  # rows of one norm, so that a column may be constant after the norm
        latents = normalize(latents, dim=1) * 0.75**0.5
    constant = torch.full((6, 1), 0.5)
    embeddings.requires_grad_()
    found = structure(torch.cat([latents, constant], dim=1), embeddings, **how)
    torch.testing.assert_close(found, structure(latents, embeddings, **how))
    found.backward()
    assert embeddings.grad.isfinite().all() and embeddings.grad.any()
    same = torch.ones(6, 3, requires_grad=True)
    structure(latents, same, **how).backward()
    assert same.grad.isfinite().all()


def test_spearman_kernel():
    x, z = V["reg.in.original"], V["reg.in.aligned"]
    how = {"temperature": V["reg.in.tau"].item(), "levels": 2, "kernel": "spearman"}
    close(structure(x, z, **how), "reg.out.level2_none_spearman")
    js = structure(x, z, divergence="js", **how).item()
    assert math.isclose(js, V["reg.true_js.level2_none_spearman"].item(), rel_tol=1e-5)


def test_metrics():
    a, b, partner = (V[f"metric.in.{n}"] for n in ("raw_a", "raw_b", "raw_a_partner"))
    labels = V["metric.in.labels"]
    close(metrics.hcs(normalize(a, dim=1), normalize(b, dim=1)), "metric.out.hcs_unit")
    close(metrics.hcs(a, b, temperature=2.0, levels=2), "metric.out.hcs_raw_tau2")
    close(metrics.l_hop_cka(a, b), "metric.out.l_hop_cka")
    close(metrics.l_hop_cka(a, b, unbiased=True), "metric.out.l_hop_cka_unbiased")
    close(metrics.purity(a, labels), "metric.out.purity_a")
    close(metrics.cross_purity(a, partner, labels), "metric.out.cross_purity")
    for alpha in (0.5, 1.0, 2.0):
        close(metrics.matrix_entropy(a, alpha), f"metric.out.matrix_entropy_{alpha}")
    for case, groups in (("grouped", V["metric.in.group"]), ("paired", None)):
        found = metrics.retrieval_at(a, partner, groups)
        close(list(found.values()), f"metric.out.retrieval_{case}")


@pytest.mark.parametrize("case", ["basic", "levels3"])
def test_total_loss_and_its_warm_up(case):
    how = HYPER[f"total.{case}"]
    rows = {s: V[f"total.in.aligned_{s}"].clone().requires_grad_() for s in "ab"}
    latents = {s: V[f"total.in.original_{s}"] for s in "ab"}
    links = torch.arange(len(rows["a"]))[:, None, None].repeat(1, 1, 2)
    objective = StructureObjective(
        options={"learnable": how["learnable_log_scale"]}, weight=HYPER["lam"],
        warmup=HYPER["warm"], levels=how["levels"], weighting=how["weighting"],
        temperature=HYPER["tau"],
    ).double()  # fmt: skip
    temperature = torch.tensor(HYPER["tau"], dtype=torch.float64)
    objective.objective.temperature.data = temperature
    for call, (total, share) in enumerate(
        zip(V[f"total.out.{case}.total"], V[f"total.out.{case}.lambda"], strict=True)
    ):
        for parameter in (*rows.values(), *objective.parameters()):
            parameter.grad = None
        loss = objective(Step.of(rows, links, latents=latents))
        loss.backward()
        close(loss.detach(), f"{case} {call}", total)
        logged = objective.log()
        assert math.isclose(logged["structure_weight"], share)
        if call:
            close(logged["structure"], f"{case} {call}", V[f"total.out.{case}.structure"][call - 1])
    for side, x in rows.items():
        close(x.grad, f"total.grad_last.{case}.aligned_{side}")
    if how["learnable_log_scale"]:  # d/dlog_scale = -temperature · d/dtemperature
        grad = -objective.objective.temperature.grad * temperature
        close(grad, f"total.grad_last.{case}.log_scale")


@pytest.mark.parametrize("case", ["lowrank_gated", "lowrank_default_gate"])
def test_head(case):
    gated = case == "lowrank_gated"
    x = V["head.in.x"].clone().requires_grad_()
    options = {"rank": HYPER["rank"], "gate": HYPER["gate"]} if gated else {"gate": 0.0}
    head = LowRankResidualAdapter(x.shape[1], V[f"head.out.{case}"].shape[1], **options).double()
    for name in ("skip", "down", "up"):
        getattr(head, name).weight.data = V[f"head.param.{case}.{name}.weight"]
    if gated:
        head.gate_logit.data = V[f"head.param.{case}.gate_logit"]
    out = head(x)
    close(out.detach(), f"head.out.{case}")
    out.square().sum().backward()
    grads = {"x": x.grad, **{n: p.grad for n, p in head.named_parameters()}}
    for name, grad in grads.items():
        close(grad, f"head.grad_sum_square.{case}.{name}")


def test_the_engine_hands_it_the_latents():
    draw = torch.Generator().manual_seed(0)
    latents = {m: torch.randn(12, d, generator=draw) for m, d in (("a", 6), ("b", 5))}
    links = torch.arange(24).reshape(12, 1, 2)
    links[3, 0, 1] = -1
    objective = StructureObjective(warmup=1, rows=8)
    adapters = {m: LinearAdapter(x.shape[1], 4) for m, x in latents.items()}
    state = TrainState.new(Alignment(adapters, objective), Training(), seed=0)
    metrics = [train_step(state, Batch(latents, links), NoMixup(), 1e-2) for _ in range(30)]
    assert "structure" not in metrics[0]  # said before the step
    assert metrics[-1]["structure"] < metrics[2]["structure"]


def test_every_option_of_the_regulariser_reaches_it():
    draw = torch.Generator().manual_seed(0)
    latents, rows = ({m: torch.randn(9, 4, generator=draw) for m in ("a", "b")} for _ in range(2))
    links = torch.arange(18).reshape(9, 1, 2)
    for how in CASES.values():
        objective = StructureObjective(weight=1.0, warmup=1, **how)
        without, loss = (objective(Step.of(rows, links, latents=latents)) for _ in range(2))
        kept = torch.stack([structure(latents[m], rows[m], **how) for m in rows]).mean()
        torch.testing.assert_close(loss - without, kept)


def test_contract():
    check_objective("structure").raise_if_failed()
    check_adapter("low-rank-residual").raise_if_failed()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: StructureObjective(levels=0),
        lambda: StructureObjective(divergence="kl"),
        lambda: StructureObjective(kernel="spearman"),
        lambda: StructureObjective(margin=-1.0),
        lambda: LowRankResidualAdapter(4, 4, gate=1.0),
        lambda: metrics.retrieval_at(torch.eye(4), torch.eye(4), ks=(5,)),
    ],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        wrong()
