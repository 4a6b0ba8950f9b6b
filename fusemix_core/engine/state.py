"""The state of a fit, and the one step that changes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple

import torch
from torch import Tensor, nn

from fusemix_core.config import Part, Training
from fusemix_core.engine.fit import Fit, M
from fusemix_core.engine.gradients import Gradients
from fusemix_core.engine.guard import step_unless
from fusemix_core.engine.metrics import Reading, StepMetrics, read
from fusemix_core.engine.randomness import stream
from fusemix_core.errors import ContractError, DivergedError
from fusemix_core.followers import Followers
from fusemix_core.interfaces import Batch, Mixup
from fusemix_core.registry import registry

ADAMW = Part("adamw")


class Place(NamedTuple):
    """Where training stands: the steps done, the epochs done, the steps done in this epoch."""

    step: int
    epoch: int
    index: int


@dataclass
class Reported:
    """The report of a step, and its batch; its latents are not kept."""

    metrics: StepMetrics
    place: Place
    batch: Batch

    def check(self) -> None:
        """Raise `DivergedError` unless the loss is finite."""
        loss = self.metrics["loss"]
        if not math.isfinite(loss):
            raise diverged(self.place, f"The loss became {loss}", self.metrics["lr"], self.batch)


@dataclass
class TrainState(Generic[M]):
    """Everything that decides the next step of a fit.

    `step` counts the steps done, `epoch` the epochs done, `index` the steps done in this epoch;
    `evaluated` is the step of the last evaluation, -1 before any, and `enough` whether it ended
    training. `averaged` contains the moving
    average of the fit's modules where the recipe asks for one. `best` are the weights kept so far,
    by module, on the CPU. `waited` counts the evaluations since the score rose, beyond its noise,
    to `risen_to`. `loss_sum` is over the `loss_count` steps since the last evaluation.
    `blocks` says how epochs are shuffled (see `feed.Blocks`).

    On a GPU nobody waits for the numbers of a step: `unread` are the steps whose numbers are still
    there, and `bad` is 1 there from the first step on whose loss is not finite; from then on no
    weight moves. See docs/decisions/0022-no-synchronisation-in-a-step.md.
    """

    fit: Fit[M]
    optimiser: torch.optim.Optimizer
    mixing: torch.Generator
    gradients: Gradients
    averaged: Followers[M] | None = None
    step: int = 0
    epoch: int = 0
    index: int = 0
    evaluated: int = -1
    enough: bool = False
    best: dict[str, dict[str, Tensor]] | None = None
    best_score: float | None = None
    risen_to: float | None = None
    best_step: int = 0
    waited: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    blocks: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    unread: list[Reported] = field(default_factory=list)
    bad: Tensor | None = None
    reading: Reading = field(default_factory=Reading)

    @classmethod
    def new(
        cls, fit: Fit[M], training: Training, seed: int, optimiser: Part = ADAMW
    ) -> TrainState[M]:
        """The state before the first step. The modules are on their device already."""
        trained = [*fit.modules.values(), fit.objective]
        return cls(
            fit,
            make_optimiser(trained, training, optimiser),
            stream(seed, "mixup"),
            Gradients(p for m in trained for p in m.parameters() if p.requires_grad),
            Followers(fit.modules, training.ema) if training.ema else None,
            risen_to=fit.least,
        )

    @property
    def kept(self) -> dict[str, M]:
        """The fit's modules as they are evaluated and kept: averaged where the recipe asks."""
        return self.fit.modules if self.averaged is None else dict(self.averaged.items())

    @property
    def place(self) -> Place:
        return Place(self.step, self.epoch, self.index)

    def settle(self) -> None:
        """Read what is unread. Raises `DivergedError` for the first step whose loss was not finite:
        the weights are those before it."""
        unread, self.unread = self.unread, []
        read([reported.metrics for reported in unread])
        self.reading.done()
        for reported in unread:
            reported.check()
            self.loss_sum += reported.metrics["loss"]
            self.loss_count += 1


def parameter_groups(modules: Iterable[nn.Module], training: Training) -> list[dict[str, Any]]:
    """Those that decay, and those that do not; see `Training.decay`."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    least = 2 if training.decay == "matrices" else 0
    return [
        {
            "params": [p for p in parameters if p.ndim >= least],
            "weight_decay": training.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim < least], "weight_decay": 0.0},
    ]


def make_optimiser(
    modules: Iterable[nn.Module], training: Training, part: Part
) -> torch.optim.Optimizer:
    """The optimiser that the part names, over all parameters of the modules that are trained."""
    groups = [g for g in parameter_groups(modules, training) if g["params"]]
    return registry.build("optimiser", part, groups, training.lr)


def train_step(
    state: TrainState,
    batch: Batch,
    mixup: Mixup,
    lr: float,
    progress: float = 0.0,
    clip_norm: float | None = None,
    ema: float = 0.0,
) -> StepMetrics:
    """One step on one batch; returns its loss, rate, what the fit logs, and the epoch.

    On the CPU it raises `DivergedError` before a weight is changed if the loss is not finite. On
    another device no weight changes either, and `TrainState.settle` raises; it is called here now
    and then.
    """
    fit, batch = state.fit, mixed(batch, mixup, state.mixing, progress)
    state.optimiser.zero_grad(set_to_none=True)  # first: a CUDA graph of it holds their memory
    loss = fit.loss(fit.step(batch, state.step, progress))
    metrics = StepMetrics({"loss": loss, "lr": lr, **fit.log()})
    known = metrics.known
    reported = Reported(metrics, state.place, _without_values(batch))
    if known:
        reported.check()
    else:
        state.bad = _flagged(loss, state.bad)
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    with state.gradients.averaged():
        loss.backward()
    parameters = [p for g in state.optimiser.param_groups for p in g["params"]]
    if clip_norm is not None:
        metrics.add({"grad_norm": nn.utils.clip_grad_norm_(parameters, clip_norm)})
    metrics.add({"epoch": state.epoch})
    step_unless(state.optimiser, None if known else state.bad)
    state.step += 1
    if state.averaged is not None:
        state.averaged.follow(fit.modules, ema_momentum(ema, state.step))
    state.unread.append(reported)
    if known or state.reading.due(len(state.unread)):
        state.settle()
    return metrics


def _flagged(loss: Tensor, bad: Tensor | None) -> Tensor:
    """1 on the loss's device if it is not finite, or if an earlier one was not; else 0."""
    now = (~loss.detach().isfinite()).float()
    return now if bad is None else torch.maximum(bad, now)


def _without_values(batch: Batch) -> Batch:
    """Which items it has, and nothing of theirs."""
    return replace(
        batch, latents=dict.fromkeys(batch.latents, torch.empty(0)), facts={}, unpaired={}
    )


def ema_momentum(ema: float, step: int) -> float:
    """The momentum of the average after so many steps, at last `ema`.

    The smaller momentum of the first steps lets go of the initial weights.
    """
    return min(ema, (1 + step) / (10 + step))


def mixed(batch: Batch, mixup: Mixup, generator: torch.Generator, progress: float) -> Batch:
    """The mixed batch. Raises `ContractError` if the mixup loses facts or unpaired items."""
    found = mixup(batch, generator, progress)
    if batch.own is not None and found.own is None:
        raise ContractError(
            f"The mixup {type(mixup).__name__}, whose `sources` says which rows it mixes,",
            "`batch.mixed(…)` of these rows",
            "a batch of its own making, in one of several processes",
        )
    if found.facts.keys() != batch.facts.keys() or found.unpaired is not batch.unpaired:
        raise ContractError(
            f"The mixup {type(mixup).__name__}",
            "a batch with the facts and unpaired items of the one given: "
            "`batch.mixed(…)`, or `dataclasses.replace(batch, latents=…)`",
            f"one with the facts {sorted(found.facts)} of {sorted(batch.facts)}",
        )
    return found


def diverged(place: Place, what: str, lr: float, batch: Batch | None = None) -> DivergedError:
    """The error that says where training stands, of which batch, and what to try."""
    step, epoch, index = (number + 1 for number in place)
    items: dict[str, list[int]] = {}
    if batch is not None:
        for modality, ids in zip(batch.latents, batch.links_here().unbind(2), strict=True):
            items[modality] = ids[ids >= 0].unique().tolist()
    return DivergedError(
        f"{what} at step {step} (epoch {epoch}, batch {index}).",
        f"Lower training.lr (now {lr:.3g}) or set training.clip_norm=1. Checkpoints saved before "
        "this step are kept.",
        items,
    )


def finite(modules: Mapping[str, nn.Module]) -> bool:
    """Whether all weights are finite."""
    found = [p.isfinite().all() for m in modules.values() for p in m.parameters()]
    return not found or bool(torch.stack(found).all())
