"""What a fit holds, and the one step that changes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.config import Part, Training
from fusemix_core.engine import distributed
from fusemix_core.engine.fit import Fit
from fusemix_core.engine.randomness import stream
from fusemix_core.errors import ContractError, DivergedError
from fusemix_core.followers import Followers
from fusemix_core.interfaces import Batch, Mixup
from fusemix_core.registry import registry

ADAMW = Part("adamw")


@dataclass
class TrainState:
    """Everything that decides the next step of a fit.

    `step` counts the steps done, `epoch` the epochs done, `index` the steps done in this epoch;
    `evaluated` is the step of the last evaluation, -1 before any, and `enough` whether it ended
    training. `averaged` holds the moving
    average of the fit's modules where the recipe asks for one. `best` are the weights kept so far,
    by module, on the CPU. `waited` counts the evaluations since the score rose, beyond its noise,
    to `risen_to`. `loss_sum` is over the `loss_count` steps since the last evaluation.
    `blocks` says how epochs are shuffled (see `feed.Blocks`).
    """

    fit: Fit
    optimiser: torch.optim.Optimizer
    mixing: torch.Generator
    averaged: Followers | None = None
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

    @classmethod
    def new(cls, fit: Fit, training: Training, seed: int, optimiser: Part = ADAMW) -> TrainState:
        """The state before the first step. The modules are on their device already."""
        return cls(
            fit,
            make_optimiser([*fit.modules.values(), fit.objective], training, optimiser),
            stream(seed, "mixup"),
            Followers(fit.modules, training.ema) if training.ema else None,
            risen_to=fit.least,
        )

    @property
    def kept(self) -> dict[str, nn.Module]:
        """The fit's modules as they are evaluated and kept: averaged where the recipe asks."""
        return self.fit.modules if self.averaged is None else dict(self.averaged.items())


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
) -> dict[str, float]:
    """One step on one batch; returns its loss, rate and what the fit logs.

    Raises `DivergedError` before a weight is changed if the loss is not finite.
    """
    fit, batch = state.fit, mixed(batch, mixup, state.mixing, progress)
    loss = fit.loss(fit.step(batch, state.step, progress))
    metrics = {"loss": loss.item(), "lr": lr, **fit.log()}
    if not math.isfinite(metrics["loss"]):
        raise diverged(state, f"The loss became {metrics['loss']}", lr, batch)
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for g in state.optimiser.param_groups for p in g["params"]]
    distributed.average_gradients(parameters)
    if clip_norm is not None:
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(parameters, clip_norm).item()
    state.optimiser.step()
    state.step += 1
    state.loss_sum += metrics["loss"]
    state.loss_count += 1
    if state.averaged is not None:
        state.averaged.follow(fit.modules, ema_momentum(ema, state.step))
    return metrics


def ema_momentum(ema: float, step: int) -> float:
    """The momentum of the average after so many steps, at last `ema`.

    The smaller momentum of the first steps lets go of the initial weights.
    """
    return min(ema, (1 + step) / (10 + step))


def mixed(batch: Batch, mixup: Mixup, generator: torch.Generator, progress: float) -> Batch:
    """The mixed batch. Raises `ContractError` if the mixup loses facts or unpaired items."""
    found = mixup(batch, generator, progress)
    if found.facts.keys() != batch.facts.keys() or found.unpaired is not batch.unpaired:
        raise ContractError(
            f"The mixup {type(mixup).__name__}",
            "a batch with the facts and unpaired items of the one given: "
            "`batch.mixed(…)`, or `dataclasses.replace(batch, latents=…)`",
            f"one with the facts {sorted(found.facts)} of {sorted(batch.facts)}",
        )
    return found


def diverged(state: TrainState, what: str, lr: float, batch: Batch | None = None) -> DivergedError:
    """The error that says where training stands, of which batch, and what to try."""
    place = f"step {state.step + 1} (epoch {state.epoch + 1}, batch {state.index + 1})"
    items: dict[str, list[int]] = {}
    if batch is not None:
        for modality, ids in zip(batch.latents, batch.links.unbind(2), strict=True):
            items[modality] = ids[ids >= 0].unique().tolist()
    return DivergedError(
        f"{what} at {place}.",
        f"Lower training.lr (now {lr:.3g}) or set training.clip_norm=1. Checkpoints saved before "
        "this step are kept.",
        items,
    )


def finite(modules: Mapping[str, nn.Module]) -> bool:
    """Whether all weights are finite."""
    return all(p.isfinite().all() for m in modules.values() for p in m.parameters())
