"""A limit on the time of a training: a schedule of as many steps as fit, so that it completes."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fusemix_core.benchmark.measuring import clock
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine.plan import Plan, plan_steps
from fusemix_core.engine.randomness import stream
from fusemix_core.engine.schedule import BY_EPOCH
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Callback, FitContext, PairedLatents
from fusemix_core.registry import registry

PROBE_STEPS = 4
"""Steps an epoch of a probe, at most."""
EVALUATION_SHARE = 0.1
"""How much of its time for steps a shortened training may take for evaluations, at most; there is
one at its end in any case."""
PROBE_SECONDS = 2.0
"""A probe goes on for so long, or for a tenth of the limit if that is less."""


class _Enough(Exception):
    """Ends a probe."""


@dataclass
class _Probe(Callback):
    """Times steps and evaluations, and ends the fit when it has timed enough."""

    device: torch.device
    seconds: float
    began: float | None = None
    last: float = 0.0
    steps: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)

    def on_start(self, total_steps: int | None) -> None:
        self.began = self.last = clock(self.device)
        self.steps, self.evaluations = [], []

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps.append(self._since_last())

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.began is None:  # of the closed form that the training starts from
            return
        self.evaluations.append(self._since_last())
        if len(self.steps) >= PROBE_STEPS and self.last - self.began >= self.seconds:
            raise _Enough

    def _since_last(self) -> float:
        before, self.last = self.last, clock(self.device)
        return self.last - before


def shortened(
    recipe: Recipe,
    train: PairedLatents,
    validation: PairedLatents,
    context: FitContext,
    seconds: float,
) -> tuple[Recipe, PairedLatents, dict[str, Any]]:
    """A recipe that trains by gradient, and its training pairs, so that it ends within a limit.

    A short probe of the same recipe, batch and latents measures how long steps and evaluations
    take. If the recipe's own schedule fits, nothing changes. Else it is evaluated less often, so
    that little of its time is lost to that, and it gets as many epochs as fit or, if not even one
    does, one epoch of a random part of the pairs. A learning rate that changes by epoch then
    changes by step, so that it completes however few epochs there are. What precedes the first
    step (a closed form that the training starts from) isn't counted: it always runs to its end.

    Args:
        seconds: The limit, by `clock`.

    Returns:
        The recipe and the pairs to fit, and what was decided: the limit's `seconds`,
        `step_seconds`, `evaluation_seconds` and `probe_seconds`, `own_steps` of the recipe's own
        schedule, `steps` of the one that it gets.

    Raises:
        ConfigError: If the aligner takes no steps.
    """
    mixup = registry.build("mixup", recipe.mixup or Part("none"))
    plan = plan_steps(len(train), mixup.rows_per_pair, recipe.training or Training())
    step, evaluation, took = _probed(recipe, plan, train, validation, context, seconds)
    training, rows = _that_fits(plan, step, evaluation, seconds)
    if rows is not None:
        order = torch.randperm(len(train), generator=stream(context.seed, "limit"))
        train = train.select(order[:rows].sort().values)
    facts = {
        "seconds": round(seconds, 3),
        "step_seconds": float(f"{step:.4g}"),
        "evaluation_seconds": float(f"{evaluation:.4g}"),
        "probe_seconds": round(took, 3),
        "own_steps": plan.total_steps,
        "steps": plan_steps(len(train), mixup.rows_per_pair, training).total_steps,
    }
    return replace(recipe, training=training), train, facts


def _that_fits(
    plan: Plan, step: float, evaluation: float, seconds: float
) -> tuple[Training, int | None]:
    """The training that fits, and on how many rows (None: all)."""
    training, epoch = plan.training, plan.steps_per_epoch * step

    def cost(epochs: int, every: int) -> float:
        return epochs * epoch + math.ceil(epochs / every) * evaluation

    if cost(training.epochs, training.evaluate_every) <= seconds:
        return training, None
    every = max(training.evaluate_every, math.ceil(evaluation / (EVALUATION_SHARE * epoch)))
    epochs = min(training.epochs, int(seconds / epoch))
    while epochs > 1 and cost(epochs, every) > seconds:
        epochs -= 1
    if training.schedule in BY_EPOCH and epochs < training.epochs:
        training = replace(training, schedule="cosine")
    training = replace(training, epochs=max(epochs, 1), evaluate_every=every)
    if cost(1, 1) <= seconds:
        return training, None
    steps = min(max(int((seconds - evaluation) / step), 1), plan.steps_per_epoch)
    return training, steps * plan.rows_per_step


def _probed(
    recipe: Recipe,
    plan: Plan,
    train: PairedLatents,
    validation: PairedLatents,
    context: FitContext,
    seconds: float,
) -> tuple[float, float, float]:
    """Seconds of a step and of an evaluation, medians, and of the probe, all by `clock`."""
    rows = torch.linspace(0, len(train) - 1, min(len(train), PROBE_STEPS * plan.rows_per_step))
    training = replace(plan.training, patience=0, max_steps=None)
    training = replace(training, epochs=max(training.epochs, 2 * training.evaluate_every))
    probe = _Probe(context.device, min(PROBE_SECONDS, seconds / 10))
    began = clock(context.device)
    aligner = registry.build("aligner", recipe.aligner)
    with contextlib.suppress(_Enough):
        aligner.fit(
            train.select(rows.round().long()),
            validation,
            replace(recipe, training=training),
            replace(context, callbacks=[probe]),
        )
    took = clock(context.device) - began
    if not probe.steps:
        raise ConfigError(
            f"The recipe '{recipe.name}' has a training, but its aligner takes no steps.",
            "Leave the limit out, or the method.",
        )
    steps = probe.steps[1:] or probe.steps  # the first one warms up
    evaluations = probe.evaluations[1:] or probe.evaluations
    return statistics.median(steps), statistics.median(evaluations), took
