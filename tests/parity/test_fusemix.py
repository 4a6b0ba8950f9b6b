"""FuseMix reproduces the original's numbers (tests/parity/fusemix/README.md says what they are)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Training
from fusemix_core.engine.schedule import learning_rate, progress
from fusemix_core.engine.state import TrainState, parameter_groups, train_step
from fusemix_core.interfaces import Batch, Mixup
from fusemix_core.mixups.fusemix import FuseMixMixup, alpha_at
from fusemix_core.mixups.none import NoMixup
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.recipes.fusemix import fusemix
from fusemix_core.selectors.dpp import dpp_of_kernel, dpp_of_latents
from fusemix_core.selectors.uniform import uniform_subset
from fusemix_core.step import Step

FOLDER = Path(__file__).parent / "fusemix"
META = json.loads((FOLDER / "meta.json").read_text())
HYPER = META["hyper"]
VECTORS = load_file(FOLDER / "vectors.safetensors")
FORWARD = ["fwd_mixup", "fwd_plain", "fwd_temp_high", "fwd_temp_low", "fwd_nobias"]
TRAIN = ["train", "train_truncated_warmup"]


def close(got, name):
    """Hold `got` to the vector `name` within meta.json's tolerance."""
    want = VECTORS[name]
    got = torch.as_tensor(got, dtype=torch.float64)
    tolerance = META["tolerance"]
    allowed = tolerance["atol"] + tolerance["rtol"] * want.abs().max()
    allowed = tolerance["overrides"].get(name, allowed)
    assert got.shape == want.shape, name
    assert (got - want).abs().max() <= allowed, name


def under(prefix):
    return {n[len(prefix) :]: t for n, t in VECTORS.items() if n.startswith(prefix)}


def modules(case):
    """The adapters and the objective of a case, with its weights."""
    weights = under(f"{case}.param.")
    adapters = {}
    for side in "ab":
        state = {n[2:]: t for n, t in weights.items() if n.startswith(f"{side}.")}
        adapters[side] = MlpAdapter(
            HYPER[f"d{side}"],
            HYPER["dp"],
            blocks=HYPER[f"l{side}"],
            expansion=HYPER["ef"],
            bias="out.bias" in state,
        ).double()
        adapters[side].load_state_dict(state)
    objective = InfoNCE().double()
    with torch.no_grad():
        objective.temperature.copy_(weights["temp"])
    return adapters, objective


def parameters(adapters, objective):
    """The vectors' names → parameters."""
    named = {f"{m}.{n}": p for m, a in adapters.items() for n, p in a.named_parameters()}
    return named | {"temp": objective.temperature}


def batch_of(a, b):
    ids = torch.arange(len(a))
    return Batch({"a": a, "b": b}, torch.stack([ids, ids], 1)[:, None, :])


@pytest.mark.parametrize("case", FORWARD)
def test_forward_loss_and_every_gradient(case):
    adapters, objective = modules(case)
    batch = batch_of(VECTORS[f"{case}.in.a"], VECTORS[f"{case}.in.b"])
    if f"{case}.in.lambda" in VECTORS:
        batch = FuseMixMixup().mix(batch, VECTORS[f"{case}.in.lambda"].item())
    embeddings = {m: adapters[m](x) for m, x in batch.latents.items()}
    loss = objective(Step.of(embeddings, batch.links))
    loss.backward()

    for side in "ab":
        close(batch.latents[side], f"{case}.out.mixed_{side}")
        close(embeddings[side], f"{case}.out.proj_{side}")
    close(loss, f"{case}.out.loss")
    close(objective.temperature, f"{case}.out.temp_after")
    named = parameters(adapters, objective)
    assert set(named) == set(under(f"{case}.grad."))
    for name, parameter in named.items():
        close(parameter.grad, f"{case}.grad.{name}")


class Replay(Mixup):
    """FuseMix with given lambdas in place of drawn ones."""

    rows_per_pair = 2

    def __init__(self, weights):
        self.weights = iter(weights.tolist())

    def __call__(self, batch, generator, progress):
        return FuseMixMixup().mix(batch, next(self.weights))


def training_of(case):
    warm = "warm" if case == "train" else "warm2"
    return Training(
        epochs=HYPER["max_epoch"],
        lr=HYPER["init_lr"],
        min_lr=HYPER["min_lr"],
        warmup_lr=HYPER["warm_lr"],
        warmup_steps=HYPER[warm],
        schedule="epoch-cosine" if case == "train" else "epoch-cosine-cut",
        weight_decay=HYPER["wd"],
    )


@pytest.mark.parametrize("case", TRAIN)
def test_a_training_run_through_the_engine(case):
    adapters, objective = modules(case)
    training = training_of(case)
    state = TrainState.new(Alignment(adapters, objective), training, seed=0)
    weights = VECTORS.get(f"{case}.in.lambda")
    mixup = NoMixup() if weights is None else Replay(weights)
    logged = {"lr": [], "loss": [], "temp": []}
    for step in range(len(VECTORS[f"{case}.in.a"])):
        batch = batch_of(VECTORS[f"{case}.in.a"][step], VECTORS[f"{case}.in.b"][step])
        lr = learning_rate(training, *divmod(step, HYPER["iters"]), HYPER["iters"])
        metrics = train_step(state, batch, mixup, lr)
        logged["lr"].append(metrics["lr"])
        logged["loss"].append(metrics["loss"])
        logged["temp"].append(metrics["temperature"])

    for what, values in logged.items():
        close(values, f"{case}.out.{what}")
    named = parameters(adapters, objective)
    assert set(named) == set(under(f"{case}.final."))
    for name, parameter in named.items():
        close(parameter.detach(), f"{case}.final.{name}")


@pytest.mark.parametrize("case", TRAIN)
def test_decay_goes_to_the_same_parameters(case):
    adapters, objective = modules(case)
    names = {id(p): n for n, p in parameters(adapters, objective).items()}
    decay, rest = parameter_groups(
        [*adapters.values(), objective], Training(weight_decay=HYPER["wd"])
    )
    assert {names[id(p)] for p in decay["params"]} == set(HYPER[case]["decay"])
    assert {names[id(p)] for p in rest["params"]} == set(HYPER[case]["no_decay"])
    assert (decay["weight_decay"], rest["weight_decay"]) == (HYPER["wd"], 0.0)


def test_learning_rates_of_the_paper():
    training = fusemix().training
    places = VECTORS["lr_table.in.epoch_step"].tolist()
    close([learning_rate(training, e, i, 600) for e, i in places], "lr_table.out.lr")


def test_the_recipe_does_not_cut_its_warmup_off():
    training = fusemix().training
    rates = [learning_rate(training, *divmod(step, 5), 5) for step in range(101)]
    assert rates == sorted(rates)
    assert rates[50] == pytest.approx(5e-4, rel=2e-3)


def test_where_the_warmup_fits_into_an_epoch_both_schedules_agree():
    training = training_of("train")
    cut = replace(training, schedule="epoch-cosine-cut")
    places = [(epoch, index) for epoch in range(5) for index in range(5)]
    assert [learning_rate(training, *p, 5) for p in places] == [
        learning_rate(cut, *p, 5) for p in places
    ]


@pytest.mark.parametrize("case", ["alpha0", "alpha1", "alpha2"])
def test_alpha_schedules(case):
    start, end, epochs = VECTORS[f"{case}.in.init_max_epochs"].tolist()
    training = Training(epochs=int(epochs), schedule="epoch-cosine")
    shares = [progress(training, e, 3, 5) for e in range(int(epochs))]
    for schedule, short in (("cosine", "cosine"), ("exponential", "exp")):
        close([alpha_at(s, start, end, schedule) for s in shares], f"{case}.out.{short}")


def test_uniform_subset():
    got = uniform_subset(VECTORS["uniform.in.n"].item(), VECTORS["uniform.in.k"].item(), seed=1)
    assert got.tolist() == VECTORS["uniform.out.indices"].tolist()


@pytest.mark.parametrize("case", ["dpp", "dpp_rank_deficient", "dpp_general"])
def test_greedy_dpp_of_the_kernel(case):
    kernel = VECTORS.get(f"{case}.out.kernel", VECTORS.get(f"{case}.in.kernel"))
    got = dpp_of_kernel(kernel, VECTORS[f"{case}.in.k"].item())
    assert got.tolist() == VECTORS[f"{case}.out.indices"].tolist()


@pytest.mark.parametrize("case", ["dpp", "dpp_rank_deficient"])
def test_dpp_of_latents_uses_the_same_kernel(case):
    latents, k = VECTORS[f"{case}.in.latents"], VECTORS[f"{case}.in.k"].item()
    unit = torch.nn.functional.normalize(latents, dim=1)
    close((unit @ unit.T + 1).square(), f"{case}.out.kernel")
    got = dpp_of_latents(latents, k)
    # The diagonal is constant up to rounding, so which item is first is not defined.
    assert len(got) == len(VECTORS[f"{case}.out.indices"])
    assert len(got.unique()) == len(got)


@pytest.mark.parametrize(
    ("dims", "dim", "blocks", "counts"),
    [
        ((1536, 1024), 512, 4, (76_330_496, 34_109_952, 110_440_449)),
        ((768, 768), 128, 1, (4_823_936, 4_823_936, 9_647_873)),
    ],
)
def test_parameter_counts(dims, dim, blocks, counts):
    with torch.device("meta"):
        sides = [MlpAdapter(d, dim, blocks=blocks) for d in dims]
    count = [sum(p.numel() for p in a.parameters()) for a in sides]
    temperature = sum(p.numel() for p in InfoNCE().parameters())
    assert (*count, sum(count) + temperature) == counts
