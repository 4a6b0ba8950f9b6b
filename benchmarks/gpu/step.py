"""The whole step of `fusemix` as published: 20,480 mixed pairs of latents 1536 and 1024 wide."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.case import Case, Jobs, against
from benchmarks.gpu.forms import COMPILED, FLOAT32, HALF, TF32, Form
from benchmarks.harness import Row
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Part
from fusemix_core.engine.compiling import Compiling
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.recipes.fusemix import fusemix
from fusemix_core.registry import registry

WIDTHS = {"image": 1536, "text": 1024}
SMALL = {"image": 64, "text": 48}
GOAL = 30.0
"""ms, in half precision and compiled."""
PAIRS, EPOCHS = 5_000_000, 500


def jobs(case: Case) -> Jobs:
    for form in (FLOAT32, TF32, HALF, COMPILED):
        yield form.name, partial(measured, case, form)
    yield "synchronisations", partial(synchronisations, case)
    yield "kernels", partial(kernels, case)


def measured(case: Case, form: Form) -> Iterable[Row]:
    recipe = fusemix().training
    found = case.timed(stepper(case, form), 6, 3)
    steps = EPOCHS * (PAIRS // (2 * recipe.batch_size))
    details = {"peak_gb": found.peak_gb, "hours_of_5_million_pairs": steps * found.seconds / 3600}
    goal = GOAL if form is COMPILED else None
    yield against(f"a step, {form.name}", found.ms, "ms", goal, details)
    yield Row(f"a step, {form.name}, peak memory", found.peak_gb, "GB")


def stepper(
    case: Case, form: Form, adapter: Part | None = None, batch: int | None = None
) -> Callable[[], None]:
    """What takes the next step of a fit by the recipe `fusemix`, its latents on the device.

    Raises `RuntimeError` for adapters that a GPU's compiler refuses.
    """
    recipe = fusemix()
    adapter, dim = adapter or recipe.adapter, case.size(recipe.dim, 32)
    batch = batch or case.size(recipe.training.batch_size, 64)
    mixup = registry.build("mixup", recipe.mixup)
    pairs = case.pairs(4 * batch * mixup.rows_per_pair, SMALL if case.quick else WIDTHS)
    training = replace(recipe.training, batch_size=batch, epochs=1_000_000, warmup_steps=0)
    plan = plan_steps(len(pairs), mixup.rows_per_pair, training)
    torch.manual_seed(0)
    adapters = {m: registry.build("adapter", adapter, d, dim) for m, d in pairs.dims.items()}
    fit = Alignment(adapters, registry.build("objective", recipe.objective))
    fit.precision, notes = form.on(case.device), []
    for module in (*adapters.values(), fit.objective):
        module.to(case.device).train()
    backend = "inductor" if case.cuda else "eager"
    compiled = adapters if form.compiled else {}
    compiling = Compiling(compiled, pairs.dims, plan, fit.precision, notes.append, backend)
    if notes and case.cuda:
        raise RuntimeError(notes[0])
    state = TrainState.new(fit, training, seed=0)
    batches = feed(pairs, plan, 0, case.device, blocks=False)

    def run() -> None:
        with fit.precision.step(), compiling.steps():
            train_step(state, next(batches), mixup, training.lr)

    return run


def synchronisations(case: Case) -> Iterable[Row]:
    """How often a step waits for the device, and where."""
    run = stepper(case, FLOAT32)
    run()
    places: list[str] = []
    if case.cuda:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            run()
        places = [
            f"{Path(w.filename).name}:{w.lineno}" for w in found if "synchroniz" in str(w.message)
        ]
    finally:
        if case.cuda:
            torch.cuda.set_sync_debug_mode("default")
    details = {"places": sorted(set(places))}
    yield against("waits for the device in a step", len(places), "", None, details)


def kernels(case: Case) -> Iterable[Row]:
    """How many kernels a step starts, and which take longest."""
    from torch.profiler import ProfilerActivity, profile

    run = stepper(case, FLOAT32)
    run()
    activity = ProfilerActivity.CUDA if case.cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        run()
        case.wait()
    name = "self_device_time_total" if case.cuda else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda e: -getattr(e, name))
    top = [[e.key[:80], e.count, round(getattr(e, name) / 1e3, 3)] for e in events[:12]]
    yield Row("kernels in a step", sum(e.count for e in events), "", details={"longest_ms": top})
