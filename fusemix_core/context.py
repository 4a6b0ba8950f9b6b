"""The surroundings of a fit: where it runs and saves, and its callbacks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fusemix_core.adapter import Adapter
from fusemix_core.devices import exact_device

EVENTS = (
    *("on_stage", "on_start", "on_step", "on_evaluation", "on_pairs"),
    *("on_interrupt", "on_cut_short", "on_end"),
)
"""The methods of a `Callback`."""


class Callback:
    """Hears how a fit goes on. Override what you need."""

    def on_stage(self, text: str) -> None:
        """A part of the fit begins: what it is, and what the parts before have reached."""

    def on_start(self, total_steps: int | None) -> None:
        """Training begins, of so many steps; None if that isn't known."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step is done: loss, rate, epoch, what the objective logs.

        On a GPU the first look at a number waits for the step to end, which costs speed if it
        happens in each step. `metrics` may be kept and read later: after some 20 steps, or a
        second, all are known.
        """

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def on_pairs(self, done: int, total: int) -> None:
        """A closed form has taken in `done` of the `total` pairs of a pass; 0 begins one."""

    def on_interrupt(self) -> None:
        """Ctrl-C or SIGTERM arrived, and training stops after the step that is going on. Called in
        the signal's handler: return soon, and wait for nothing."""

    def on_cut_short(self, why: str) -> None:
        """The fit was stopped from outside, and ends with the best model that it has so far."""

    def on_end(self) -> None: ...

    def through(
        self, only: Collection[str] = EVENTS, added: Mapping[str, float] | None = None
    ) -> Callback:
        """A callback that passes on to this one what another fit reports.

        Args:
            only: the events that are passed on, such as `("on_pairs", "on_evaluation")`.
            added: further metrics of each evaluation.
        """
        return _Through(self, only, added or {})


class _Through(Callback):
    def __init__(self, other: Callback, only: Collection[str], added: Mapping[str, float]) -> None:
        for event in only:
            setattr(self, event, getattr(other, event))
        if "on_evaluation" in only and added:
            self.on_evaluation = lambda step, metrics: other.on_evaluation(
                step, {**metrics, **added}
            )


@dataclass
class FitContext:
    """The surroundings of a fit: where it runs, where it saves, who hears of it.

    `checkpoints` is the folder for `step-N/`; None saves nothing. With `resume` the fit goes on
    from the newest complete checkpoint there, to the result it would have had. `latents` says which
    ones the tables hold, such as a digest of items and encoders: a checkpoint of a fit on others is
    refused.

    `fixed` contains given adapters by modality, all of one width, in eval mode on the CPU: their
    embeddings are the space that the other modalities' adapters are fitted to, and they stay as
    they are.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    checkpoints: Path | None = None
    resume: bool = False
    callbacks: Sequence[Callback] = ()
    fixed: Mapping[str, Adapter] = field(default_factory=dict)
    latents: str = ""

    def exact(self) -> FitContext:
        """The same on a device that has float64, for a closed form."""
        return replace(self, device=exact_device(self.device))
