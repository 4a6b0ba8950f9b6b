"""Components on an emulated GPU: nothing is on the wrong device, and a step waits for nothing.

`allowed.json` lists what still waits, and what uses float64, by file and function. It may only
shrink: what is new fails, and so does what is listed and gone.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerator.emulated import CPU, CUDA, emulated
from accelerator.subjects import Steps, fitted, names, pairs

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine import feed as feeds
from fusemix_core.engine import metrics
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import Callback, FitContext, ResidentLatents
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.registry import registry

ALLOWED = Path(__file__).with_name("allowed.json")
COMPLETE = pytest.param(False, marks=pytest.mark.long)
GAPS = pytest.mark.parametrize("gaps", [COMPLETE, True], ids=["complete", "gaps"])
FORMS = [("float32", True), ("half", True)]
"""Numbers of a step, and whether entries are missing."""
WAITING_STEPS = {"fusemix_core/objectives/half_passes.py::Entries.by_tiles"}
"""Where a step with rows that share items may wait."""
DRAWN = ("gaussian", "quantised")
"""Mixups that draw on the device."""


@cache
def stepped(kind: str, name: str, gaps: bool, precision: str = "float32"):
    """(losses of three steps, what the second one waited for, where it used float64)."""
    patch = pytest.MonkeyPatch()
    patch.setattr(metrics, "READ_SECONDS", 1e9)
    with emulated() as device:
        steps = Steps(CUDA, **{kind: name}, gaps=gaps, precision=precision)
        first = steps.step()
        device.clear()
        second = steps.step()
        waits, float64 = dict(device.waits), {place for _, place in device.float64}
        losses = [one["loss"] for one in (first, second, steps.step())]
    patch.undo()
    return losses, waits, float64


@cache
def stepped_on_a_cpu(**what):
    """The losses of three steps."""
    return [one["loss"] for one in Steps(CPU, **what).run(3)]


@pytest.mark.parametrize(
    ("precision", "gaps"),
    [
        FORMS[0],
        pytest.param(*FORMS[1], marks=pytest.mark.slow),
        pytest.param("half", False, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("name", names("objective"))
def test_a_step_of_an_objective_is_that_of_a_cpu_and_waits_for_nothing(name, precision, gaps):
    losses, waits, _ = stepped("objective", name, gaps, precision)
    wanted = stepped_on_a_cpu(objective=name, gaps=gaps)
    assert losses == pytest.approx(wanted, rel=1e-4 if precision == "float32" else 1e-2)
    assert {place for _, place in waits} <= WAITING_STEPS


@GAPS
@pytest.mark.parametrize("name", names("mixup"))
def test_a_mixed_step_waits_for_nothing(name, gaps):
    losses, waits, _ = stepped("mixup", name, gaps)
    wanted = stepped_on_a_cpu(mixup=name, gaps=gaps)
    if name not in DRAWN:
        assert losses == pytest.approx(wanted, rel=1e-4)
    assert losses == pytest.approx(losses) and waits == {}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_on_the_device_depends_on_the_seed_alone(name, device):
    mixup, batch = (
        registry.build("mixup", Part(name)),
        pairs(gaps=True).batch(torch.arange(9), CUDA),
    )
    first, again, other = (
        mixup(batch, torch.Generator().manual_seed(seed), 0.0).latents["image"].cpu()
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.isfinite().all() and not torch.equal(first, batch.latents["image"].cpu())


@pytest.mark.parametrize("name", names("adapter"))
def test_a_step_of_an_adapter_waits_for_nothing(name):
    assert stepped("adapter", name, False)[1] == {}


@pytest.mark.parametrize("name", names("optimiser"))
def test_a_step_of_an_optimiser_waits_for_nothing(name):
    losses, waits, _ = stepped("optimiser", name, False)
    wanted = stepped_on_a_cpu(optimiser=name)
    assert losses == pytest.approx(wanted, rel=1e-4) and waits == {}


class Elsewhere(InfoNCE):
    """Weighs rows by numbers that it makes on the CPU."""

    def forward(self, step):
        x = step.embeddings["image"]
        return super().forward(step) + (x * torch.ones(len(x), 1)).sum()


def test_a_tensor_on_the_wrong_device_fails(device, own_registry):
    registry.add_component("objective", "elsewhere", Elsewhere)
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        Steps(CUDA, objective="elsewhere").step()


@cache
def fitting(aligner: str):
    """(embeddings, what the fit waited for, where it used float64)."""
    with emulated() as device:
        found = fitted(aligner, CUDA)
        return found, set(device.waits), {place for _, place in device.float64}


@pytest.mark.parametrize("name", names("aligner"))
def test_an_aligner_fits_on_the_device_what_it_fits_on_a_cpu(name):
    for modality, wanted in fitted(name, CPU).items():
        torch.testing.assert_close(fitting(name)[0][modality], wanted, rtol=1e-3, atol=1e-4)


@cache
def scoring(name: str):
    """(metrics of retrieval, what they waited for)."""
    draw = torch.Generator().manual_seed(0)
    rows = {m: torch.randn(40, 6, generator=draw) for m in ("image", "text")}
    rows = {m: torch.nn.functional.normalize(x) for m, x in rows.items()}
    with emulated() as device:
        found = []
        for where in (CPU, CUDA):
            scorer = registry.build("scorer", Part(name))
            scorer.fit({m: x.to(where) for m, x in rows.items()})
            device.clear()
            links = torch.arange(40)[:, None].repeat(1, 2)
            found.append(retrieval(rows, links, scorer.score, device=where, resamples=2))
        return found, set(device.waits), set()


@pytest.mark.parametrize("name", names("scorer"))
def test_a_scorer_finds_on_the_device_what_it_finds_on_a_cpu(name):
    (here, there), *_ = scoring(name)
    assert here == there


@cache
def selecting(name: str):
    """(the rows that are chosen, what that waited for)."""
    with emulated() as device:
        here, there = (
            registry.build("selector", Part(name)).select(pairs(), 12, FitContext(device=where))
            for where in (CPU, CUDA)
        )
        return (here.tolist(), there.tolist()), set(device.waits), {p for _, p in device.float64}


@pytest.mark.parametrize("name", names("selector"))
def test_a_selector_chooses_on_the_device_what_it_chooses_on_a_cpu(name):
    (here, there), *_ = selecting(name)
    assert here == there


class StopAt(Callback):
    """Stops, and asks for a number of each step."""

    def __init__(self, step=None):
        self.step, self.losses = step, []

    def on_step(self, step, metrics):
        self.losses.append(metrics["loss"])
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_fit_on_the_device_is_resumed_exactly(tmp_path, device):
    recipe = Recipe(
        "small",
        Part("gradient"),
        dim=4,
        adapter=Part("mlp", {"blocks": 1}),
        mixup=Part("gaussian"),
        objective=Part("infonce"),
        training=Training(epochs=2, batch_size=16, ema=0.9),
    )
    data = pairs(gaps=True)

    def fit(folder, **context):
        context = FitContext(device=CUDA, checkpoints=tmp_path / folder, **context)
        found = GradientAligner().fit(data, data, recipe, context)
        return [p for a in found.values() for p in a.parameters()]

    heard = StopAt()
    whole = fit("whole", callbacks=[heard])
    with pytest.raises(KeyboardInterrupt):
        fit("parts", callbacks=[StopAt(6)])
    resumed = fit("parts", resume=True)
    assert all(type(x) is float for x in heard.losses) and len(heard.losses) == 8
    assert all(torch.equal(x, y) for x, y in zip(whole, resumed, strict=True))


def test_tables_of_another_gpu_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    table = ResidentLatents(SimpleNamespace(device=torch.device("cuda", 1)))
    data = SimpleNamespace(tables={"image": table})
    for there, wanted in (("cuda:1", True), ("cuda", True), ("cuda:0", False), ("cpu", False)):
        assert feeds._all_on(data, torch.device(there)) is wanted


def measured():
    """What `allowed.json` lists: for each function in how many components it does that."""
    float64, waits, wide = Counter(), Counter(), Counter()
    for kind in ("objective", "mixup", "adapter", "optimiser"):
        for name in names(kind):
            forms = FORMS if kind == "objective" else [("float32", kind == "mixup")]
            used = [stepped(kind, name, gaps, precision)[2] for precision, gaps in forms]
            float64.update(set().union(*used))
    for kind, work in (("aligner", fitting), ("scorer", scoring), ("selector", selecting)):
        for name in names(kind):
            _, waited, used = work(name)
            waits.update(f"{place}: {what}" for what, place in waited if place != "elsewhere")
            wide.update(place for place in used if place != "elsewhere")
    found = {"float64 in a step": float64, "waits elsewhere": waits, "float64 elsewhere": wide}
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}


@pytest.mark.slow
def test_waits_and_uses_of_float64_are_those_that_are_listed():
    found, allowed = measured(), json.loads(ALLOWED.read_text())
    new, gone = [], []
    for group in found:
        listed = allowed[group]
        for place in sorted({*found[group], *listed}):
            here, there = found[group].get(place, 0), listed.get(place, 0)
            if here > there:
                new.append(f"{group}: {place}: {here}, and {there} allowed")
            elif here < there:
                gone.append(f"{group}: {place}: {here}, and {there} listed")
    assert not new, "\n".join(["A GPU is asked more than before:", *new])
    assert not gone, "\n".join([f"Better than listed: lower these in {ALLOWED.name}.", *gone])
