"""HAMMER gives the original's numbers; `parity/hammer/README.md` says where they come from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_hammer.heads import ManipulationHeads, box_losses, head_losses
from fusemix_hammer.objective import HammerObjective
from safetensors.torch import load_file

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.boxes import giou
from fusemix_core.config import Training
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.interfaces import Batch, FitContext, Followers
from fusemix_core.mixups.none import NoMixup

FOLDER = Path(__file__).parent / "parity/hammer"
META = json.loads((FOLDER / "meta.json").read_text())
HYPER = META["hyper"]
V = load_file(FOLDER / "vectors.safetensors")
CASES = ("hard", "distilled")
PARTS = {
    "binary_head": "binary_head",
    "multi_head": "multi_head",
    "box_head": "box_head",
    "token_head": "token_head",
    "local.norm": "local_norm",
    "aggregate.norm": "aggregate_norm",
    "aggregate.query": "query",
    "local.attention": "local",
    "aggregate.attention": "aggregate",
}
"""Names in the vectors → those of `ManipulationHeads`."""


def close(got, name):
    rule, want = META["tolerance"], V[name].double()
    allowed = max(rule["atol"] + rule["rtol"] * want.abs().max(), rule["overrides"].get(name, 0))
    assert got.shape == want.shape, name
    assert (got.double() - want).abs().max() <= allowed, name


def under(prefix):
    return {k.removeprefix(prefix): v for k, v in V.items() if k.startswith(prefix)}


def state_of(case):
    """What a fit holds before the step: adapters, copies that follow them, the objective."""
    adapters = {s: LinearAdapter(HYPER["w"], HYPER["e"]).double() for s in "ab"}
    objective = HammerObjective(
        alpha=V[f"{case}.in.alpha"].item(), momentum=HYPER["momentum"], queue=HYPER["Q"]
    ).double()
    objective.temperature.data = V[f"{case}.param.temp"].clone()
    objective.queue = torch.stack([V[f"{case}.in.{s}_queue"].T for s in "ab"], dim=1)
    objective.queued = torch.ones(HYPER["Q"], 2, dtype=torch.bool)
    objective.pointer = V[f"{case}.in.queue_pointer"][0].clone()
    objective.start(adapters, None, None, FitContext())
    state = TrainState.new(Alignment(adapters, objective), Training(), seed=0)
    for s in "ab":
        adapters[s].out.load_state_dict(under(f"{case}.param.{s}.proj."))
        objective.followers[s].out.load_state_dict(under(f"{case}.param.{s}.proj_momentum."))
    return state


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_the_engine_has_the_contrastive_loss_its_gradients_and_queue(case):
    state = state_of(case)
    count = HYPER["B"]
    batch = Batch(
        {s: V[f"{case}.in.{s}_tokens"][:, 0] for s in "ab"},
        torch.arange(2 * count).reshape(count, 1, 2),
        facts={"trust": V[f"{case}.in.is_real"].float()[:, None]},
    )
    metrics = train_step(state, batch, NoMixup(), lr=0.0)
    close(torch.tensor(metrics["loss"], dtype=torch.float64), f"{case}.out.contrastive")
    close(state.fit.objective.temperature.grad, f"{case}.grad_of_sum.temp")
    for k, s in enumerate("ab"):
        for name, parameter in state.fit.modules[s].out.named_parameters():
            close(parameter.grad, f"{case}.grad_of_sum.{s}.proj.{name}")
        close(state.fit.objective.queue[:, k].T, f"{case}.out.{s}_queue_after")
    close(state.fit.objective.pointer[None], f"{case}.out.queue_pointer_after")


def heads_of(case):
    heads = ManipulationHeads(HYPER["w"], HYPER["heads"]).double()
    heads.load_state_dict(
        {ours(name): v for name, v in under(f"{case}.param.").items() if ours(name)}
    )
    return heads


def ours(name):
    """The name of a parameter in `ManipulationHeads`, "" although it is not of the heads."""
    for theirs, own in PARTS.items():
        if name == theirs or name.startswith(f"{theirs}."):
            rest = name.removeprefix(theirs)
            rest = {".in.weight": ".in_proj_weight", ".in.bias": ".in_proj_bias"}.get(rest, rest)
            if "attention" in theirs:
                rest = rest.replace(".out.", ".out_proj.")
            return own + rest
    return ""


@pytest.mark.parametrize("case", CASES)
def test_the_heads_have_the_other_losses_and_gradients(case):
    heads = heads_of(case)
    given = under(f"{case}.in.")
    mask = given["b_mask"].bool()
    predicted = heads(given["a_tokens"], given["b_tokens"], mask, given["fused_tokens"])
    for name, value in predicted.items():
        close(value.detach(), f"{case}.out.predicted_{name}")
    taught = None
    if "fused_tokens_momentum" in given:
        followers = Followers({"token": heads.token_head}, HYPER["momentum"])
        followers["token"].load_state_dict(under(f"{case}.param.token_head_momentum."))
        followers.follow({"token": heads.token_head})
        taught = followers["token"](given["fused_tokens_momentum"][:, 1:])
    losses = head_losses(
        predicted,
        given["is_real"],
        given["multi_label"],
        given["box"],
        given["fake_token"],
        mask[:, 1:],
        smoothing=HYPER["label_smoothing"],
        taught=taught,
        alpha=given["alpha"].item(),
    )
    assert len(losses) == 5
    for name, loss in losses.items():
        close(loss.detach(), f"{case}.out.{name}")
    sum(losses.values()).backward()
    compared = 0
    gradients = dict(heads.named_parameters())
    for name in under(f"{case}.grad_of_sum."):
        if ours(name):
            close(gradients[ours(name)].grad, f"{case}.grad_of_sum.{name}")
            compared += 1
    assert compared == len(gradients)


def test_box_losses():
    predicted = V["box.in.predicted"].clone().requires_grad_()
    target, skip = V["box.in.target"], V["box.in.skip"]
    l1, overlap = box_losses(predicted, target)
    (l1 + overlap).backward()
    close(l1.detach(), "box.out.l1")
    close(overlap.detach(), "box.out.giou")
    close(giou(predicted, target).detach(), "box.out.giou_each")
    close(predicted.grad, "box.grad_of_sum.predicted")
    for value, name in zip(
        box_losses(predicted, target, skip), ("l1_skip", "giou_skip"), strict=True
    ):
        close(value.detach(), f"box.out.{name}")
