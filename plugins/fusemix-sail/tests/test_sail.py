"""SAIL gives the original's numbers; `parity/sail/README.md` says where they come from."""

import json
import math
from pathlib import Path

import pytest
import torch
from fusemix_sail.barlow import BarlowTwins
from fusemix_sail.layers import LAYERS, AlignmentLayer, ShareLockHead
from fusemix_sail.objective import SailObjective
from pairs import write_world
from safetensors.torch import load_file
from torch.nn.functional import normalize
from toys import ToyImage, ToyText

from fusemix_core import align
from fusemix_core.config import Part, Training
from fusemix_core.engine.state import make_optimiser
from fusemix_core.errors import ConfigError
from fusemix_core.objectives.siglip import SigLIP
from fusemix_core.runs.config import find_recipe
from fusemix_core.step import Step
from fusemix_core.testing import check_adapter, check_objective

FOLDER = Path(__file__).parent / "parity/sail"
META = json.loads((FOLDER / "meta.json").read_text())
V = load_file(FOLDER / "vectors.safetensors")


def close(got, name, at=...):
    rule, want = META["tolerance"], V[name][at]
    assert (got - want).abs().max() <= rule["atol"] + rule["rtol"] * want.abs().max(), name


def under(prefix):
    return {n.removeprefix(prefix): t.clone() for n, t in V.items() if n.startswith(prefix)}


def links(n, modalities):
    return torch.arange(n)[:, None, None].repeat(1, 1, modalities)


@pytest.mark.parametrize("captions", ["single", "multi"])
@pytest.mark.parametrize("layer", ["linear", "glu", "mlp"])
def test_layers_and_loss(layer, captions):
    case, hyper = f"{layer}_{captions}", META["hyper"]
    sides = {"a": "a", "b": "b", **({"b_extra": "b"} if captions == "multi" else {})}
    adapters = {}
    for side, width in (("a", hyper["da"]), ("b", hyper["db"])):
        adapters[side] = AlignmentLayer(width, hyper["dp"], layer=layer, width_factor=hyper["wf"])
        adapters[side].double().load_state_dict(under(f"{case}.param.{side}."))
    objective = SailObjective(anchor="a").double()
    objective.log_scale.data = V[f"{case}.param.logit_scale"][0].clone()
    objective.bias.data = V[f"{case}.param.logit_bias"][0].clone()
    rows = {n: adapters[side](V[f"{case}.in.{n}"]) for n, side in sides.items()}
    for name, projected in rows.items():
        close(projected.detach(), f"{case}.out.proj_{name}")
    loss = objective(Step.of(rows, links(hyper["B"], len(rows))))
    loss.backward()
    close(loss.detach(), f"{case}.out.loss")
    for side, adapter in adapters.items():
        for name, parameter in adapter.named_parameters():
            close(parameter.grad, f"{case}.grad.{side}.{name}")
    close(objective.log_scale.grad, f"{case}.grad.logit_scale")
    close(objective.bias.grad, f"{case}.grad.logit_bias")
    if captions == "multi":
        extra = SailObjective().double()
        extra.load_state_dict(objective.state_dict())
        pair = {n: rows[n].detach() for n in ("a", "b_extra")}
        close(extra(Step.of(pair, links(hyper["B"], 2))).detach(), f"{case}.out.extra_loss")


@pytest.mark.parametrize("layer", ["linear", "glu", "mlp"])
def test_two_captions_of_an_image_are_two_rows_through_one_adapter(layer):
    """Data with two columns of texts: each image in two rows of the batch."""
    case, hyper = f"{layer}_multi", META["hyper"]
    adapters = {}
    for side, width in (("a", hyper["da"]), ("b", hyper["db"])):
        adapters[side] = AlignmentLayer(width, hyper["dp"], layer=layer, width_factor=hyper["wf"])
        adapters[side].double().load_state_dict(under(f"{case}.param.{side}."))
    objective = SailObjective().double()
    objective.log_scale.data = V[f"{case}.param.logit_scale"][0].clone()
    objective.bias.data = V[f"{case}.param.logit_bias"][0].clone()
    images = torch.arange(hyper["B"]).repeat(2)
    rows = {
        "a": adapters["a"](V[f"{case}.in.a"][images]),
        "b": adapters["b"](torch.cat([V[f"{case}.in.b"], V[f"{case}.in.b_extra"]])),
    }
    ids = torch.stack([images, torch.arange(len(images))], dim=1)[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    loss = objective(Step.of({m: x[order] for m, x in rows.items()}, ids[order]))
    loss.backward()
    close(loss.detach(), f"{case}.out.loss")
    for side, adapter in adapters.items():
        for name, parameter in adapter.named_parameters():
            close(parameter.grad, f"{case}.grad.{side}.{name}")
    close(objective.log_scale.grad, f"{case}.grad.logit_scale")
    close(objective.bias.grad, f"{case}.grad.logit_bias")


@pytest.mark.parametrize("case", [f"{x}_{y}" for x in LAYERS for y in ("single", "multi")])
def test_the_shares_of_positives_and_negatives(case):
    objective = SailObjective().double()
    objective.log_scale.data = V[f"{case}.param.logit_scale"][0].clone()
    objective.bias.data = V[f"{case}.param.logit_bias"][0].clone()
    n = META["hyper"]["B"]
    objective(Step.of({s: V[f"{case}.out.proj_{s}"] for s in "ab"}, links(n, 2)))
    for share in ("positive_loss", "negative_loss"):
        close(torch.as_tensor(objective.log()[share], dtype=torch.float64), f"{case}.out.{share}")


def test_barlow():
    rows = {s: V[f"barlow.in.{s}"].clone().requires_grad_() for s in "ab"}
    objective = BarlowTwins()
    loss = objective(Step.of(rows, links(len(rows["a"]), 2)))
    close(loss.detach(), "barlow.out.loss")
    short = [x[:, :2].detach().requires_grad_() for x in rows.values()]
    assert torch.autograd.gradcheck(
        lambda a, b: objective(Step.of({"a": a, "b": b}, links(len(a), 2))), short
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_feature_that_is_the_same_in_all_rows_correlates_with_nothing(dtype):
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 5, generator=draw, dtype=dtype) for _ in range(2))
    a[:, 2] = 0.1
    a.requires_grad_()
    weight, others = 0.0051, [0, 1, 3, 4]
    loss = BarlowTwins()(Step.of({"a": a, "b": b}, links(7, 2)))
    z, w = ((x - x.mean(dim=0)) / x.std(dim=0) for x in (a.detach()[:, others], b))
    c = torch.zeros(5, 5, dtype=dtype)
    c[others] = z.T @ w / 7
    own = c.diagonal()
    wanted = (own - 1).square().sum() + weight * (c.square().sum() - own.square().sum())
    torch.testing.assert_close(loss.detach(), wanted)
    loss.backward()
    assert a.grad.isfinite().all() and not a.grad[:, 2].any() and a.grad[:, others].any()


def test_sharelocks_head():
    hyper = META["hyper"]
    head = ShareLockHead(
        hyper["db"], V["sharelock.out.train"].shape[1], hidden=hyper["hid"], dropout=0.0
    )
    head.double().load_state_dict(under("sharelock.param."), strict=False)
    out = head.train()(V["sharelock.in.b"])
    close(out.detach(), "sharelock.out.train")
    out.square().mean().backward()
    for name, parameter in head.named_parameters():
        close(parameter.grad, f"sharelock.grad_mean_square.{name}")
    close(head.eval()(V["sharelock.in.b"]).detach(), "sharelock.out.eval_after_one_pass")


def test_training_by_lion():
    hyper, how = META["hyper"], META["hyper"]["train_lion"]
    adapters = {}
    for side, width in (("a", hyper["da"]), ("b", hyper["db"])):
        adapters[side] = AlignmentLayer(width, hyper["dp"], width_factor=hyper["wf"]).double()
        adapters[side].load_state_dict(under(f"train_lion.param.{side}."))
    objective = SailObjective(anchor="a").double()
    objective.log_scale.data = V["train_lion.param.logit_scale"][0].clone()
    objective.bias.data = V["train_lion.param.logit_bias"][0].clone()
    training = Training(lr=hyper["lr"], weight_decay=hyper["wd"], decay="all")
    lion = Part("lion", {"betas": (how["b1"], how["b2"])})
    optimiser = make_optimiser([*adapters.values(), objective], training, lion)
    for step, lr in enumerate(V["train_lion.out.lr"]):
        rows = {n: adapters[n[0]](V[f"train_lion.in.{n}"][step]) for n in ("a", "b", "b_extra")}
        loss = objective(Step.of(rows, links(hyper["B"], 3)))
        close(loss.detach(), "train_lion.out.loss", step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = lr.item()
        optimiser.step()
    for side, adapter in adapters.items():
        for name, parameter in adapter.named_parameters():
            close(parameter.detach(), f"train_lion.final.{side}.{name}")
    scale = objective.log_scale.detach().clamp(max=math.log(100.0))  # the original clamps after it
    close(scale, "train_lion.final.logit_scale")
    close(objective.bias.detach(), "train_lion.final.logit_bias")


def test_a_run_on_a_raw_and_a_long_caption(tmp_path):
    """`--column text=raw,long`: two rows an image, one adapter, both rows in one batch."""
    data = write_world(tmp_path / "w", count=48)
    first, *lines = data.read_text().splitlines()
    longer = [f"{line},{line.split(',')[1]} seen from close by" for line in lines]
    data.write_text("\n".join([f"{first},long", *longer]))
    done = align(
        {"image": ToyImage, "text": ToyText},
        {"source": str(data), "columns": {"text": "text,long"}},
        recipe="sail", device="cpu", out=tmp_path / "r",
        overrides=["dim=8", "training.epochs=2", "training.together=image", "adapter.layer=linear"],
    )  # fmt: skip
    pairs = done.encoded.paired("train")
    assert len(pairs) == 2 * len(pairs.linked("image"))
    assert set(done.model.adapters) == {"image", "text"}


def drawn(n=6):
    draw = torch.Generator().manual_seed(0)
    return {m: torch.randn(n, 5, generator=draw) for m in ("image", "text", "long")}


def test_without_an_anchor_it_is_siglip_over_n():
    rows = drawn()
    ours = SailObjective()(Step.of(rows, links(6, 3)))
    torch.testing.assert_close(ours, SigLIP(scale=20.0)(Step.of(rows, links(6, 3))) / 6)


def test_pairs_without_the_anchor_do_not_count():
    rows = drawn()
    got = SailObjective(anchor="image")(Step.of(rows, links(6, 3)))
    x, *others = (normalize(r, dim=1) for r in rows.values())
    labels = 2 * torch.eye(6) - 1
    losses = [(-labels * (20 * x @ y.T - 10)).exp().log1p().mean() for y in others]
    torch.testing.assert_close(got, torch.stack(losses).mean())


def test_the_scale_is_clamped_before_use():
    objective = SailObjective()
    objective.log_scale.data.fill_(9.0)
    objective(Step.of(drawn(), links(6, 3)))
    assert objective.log()["scale"] == pytest.approx(100.0, rel=1e-5)


@pytest.mark.slow
def test_contract_and_recipe():
    check_objective("sail").raise_if_failed()
    check_objective("barlow").raise_if_failed()
    for layer in ("linear", "glu", "mlp"):
        check_adapter("sail", options={"layer": layer}).raise_if_failed()
    check_adapter("sharelock", options={"hidden": 32}).raise_if_failed()
    assert find_recipe("sail", []).adapter.name == "sail"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: AlignmentLayer(4, 4, layer="conv"),
        lambda: ShareLockHead(4, 4, hidden=0),
        lambda: SailObjective(anchor="sound")(Step.of(drawn(), links(6, 3))),
        lambda: BarlowTwins(weight=-1.0),
    ],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        wrong()
