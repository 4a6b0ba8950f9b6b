"""A network trained to complement a closed form: what it adds to it is its score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fusemix_core.adapters.mixture import MixtureAdapter, as_member, check_member
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.aligners.budget import Budget
from fusemix_core.aligners.gradient import GradientAligner, adapter_part
from fusemix_core.aligners.judge import Judge, Units, first_of, score_of
from fusemix_core.aligners.recalls import Hits, gain
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine.fit import ENOUGH, NOISE
from fusemix_core.engine.loop import Trainer
from fusemix_core.engine.plan import choose_batch_size
from fusemix_core.gathering import processes
from fusemix_core.interfaces import (
    Adapter,
    FitContext,
    Objective,
    PairedLatents,
    Step,
)

BATCH = 1_024
"""Pairs of a step at most, unless the recipe says how many: larger steps learn less in the same
time."""

RARELY = 50, 500
"""Steps between the first evaluations, at least and at most: else they are half an epoch."""

SHARES = (0.25, 0.5, 0.75, 1.0)
"""The network's shares that are tried at each evaluation."""

UNITS, PAIRS_A_UNIT = (128, 2_048), 12
"""Hidden units of a `wide` adapter, at least and at most, and training pairs for each: the power of
two at or below."""

INTERRUPTED = "Interrupted: going on with the best model so far"
"""Told as a stage, and to `on_cut_short`."""

SCORED = 2_000
"""Validation rows that score the network while it is trained."""


class Complement(Alignment):
    """The fit of a network, scored as a member of its mixture with a closed form.

    Args:
        adapters, objective: As of `Alignment`.
        judge: Of the validation rows.
        closed: What the closed form makes of these rows.
        budget: Ends training.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        objective: Objective,
        judge: Judge,
        closed: Units,
        budget: Budget,
    ) -> None:
        super().__init__(adapters, objective, judge.validation, device=judge.device)
        self.judge, self.closed, self.budget = judge, closed, budget
        self.alone = judge.hits(closed)
        self.least = score_of(self.alone)
        self.steps = 0

    def expected_steps(self, most: int) -> int | None:
        return min(most, int(self.budget.steps)) if self.budget.steps < math.inf else None

    def loss(self, step: Step) -> Tensor:
        self.steps = step.number + 1
        return super().loss(step)

    def validate(self, modules: Mapping[str, Adapter]) -> dict[str, float]:
        own = self.judge.embed(modules)
        share, hits = best_share(self.judge, self.closed, own, SHARES)
        _, noise = gain(hits, self.alone)
        return {
            "recall_at_1": first_of(hits),
            "score": score_of(hits),
            "share": share,
            NOISE: noise,
            ENOUGH: not self.budget.allows(steps=self.steps + 1),
        }


class ComplementAligner(GradientAligner):
    """Trains the recipe's adapters as a complement. Ctrl-C ends training with the best weights so
    far.

    Args:
        closed: The adapters whose complement is trained.
        budget: Ends training.

    Raises:
        ConfigError: As `GradientAligner`, and for an adapter of tokens, which can't be mixed.
    """

    def __init__(self, closed: Mapping[str, Adapter], budget: Budget) -> None:
        self.closed, self.budget = closed, budget

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        for modality in train.modalities:
            check_member(adapter_part(recipe, modality))
        recipe = sized(recipe, len(train))
        training = recipe.training or Training()
        batch = training.batch_size or min(choose_batch_size(len(train)), BATCH)
        half = len(train) // batch // 2  # an epoch
        often = training.evaluate_steps or min(max(half, RARELY[0]), RARELY[1])
        training = replace(training, batch_size=batch, evaluate_steps=often)
        recipe = replace(recipe, training=training)
        self.judge = Judge(validation, context, SCORED)
        return super().fit(train, validation, recipe, context)

    def _alignment(
        self,
        adapters: Mapping[str, Adapter],
        objective: Objective,
        validation: PairedLatents,
        fixed: Mapping[str, Adapter],
        device: torch.device,
    ) -> Alignment:
        units = self.judge.embed(self.closed)
        return Complement(adapters, objective, self.judge, units, self.budget)

    def _run(self, trainer: Trainer) -> dict[str, Adapter]:
        try:
            return trainer.run()
        except KeyboardInterrupt as stop:
            if trainer.state.best is None or not only_ctrl_c(stop):
                raise
            for callback in trainer.callbacks:
                callback.on_stage(INTERRUPTED)
                callback.on_cut_short(INTERRUPTED)
            return trainer.kept()


def sized(recipe: Recipe, pairs: int) -> Recipe:
    """The recipe whose `wide` adapters have as many hidden units as suit so many pairs, unless it
    says how many: more learn no better from few pairs, and take longer."""
    units = min(max(1 << (max(pairs // PAIRS_A_UNIT, 1).bit_length() - 1), UNITS[0]), UNITS[1])

    def fitting(part: Part) -> Part:
        if part.name != "wide" or "hidden" in part.options:
            return part
        return replace(part, options={**part.options, "hidden": units})

    adapters = {m: fitting(part) for m, part in (recipe.adapters or {}).items()}
    adapter = recipe.adapter and fitting(recipe.adapter)
    return replace(recipe, adapter=adapter, adapters=adapters or None)


def only_ctrl_c(stop: KeyboardInterrupt) -> bool:
    """Whether the fit may end with the best so far. What is more than Ctrl-C, such as SIGTERM,
    wants the run to be resumed; and of several processes no other would know."""
    return type(stop) is KeyboardInterrupt and processes() == 1


def best_share(
    judge: Judge, closed: Units, own: Units, shares: Sequence[float]
) -> tuple[float, Hits]:
    """The share at which the mixture finds most, and what it finds."""
    tried = zip(shares, judge.hits_mixed(closed, own, shares), strict=True)
    return max(tried, key=lambda one: score_of(one[1]))


def mixture(
    closed: Mapping[str, Adapter],
    trained: Mapping[str, Adapter],
    share: float,
    train: PairedLatents,
) -> dict[str, Adapter]:
    """The two as one adapter per modality; `trained` itself if its share is 1."""
    if share == 1:
        return dict(trained)
    adapters: dict[str, Adapter] = {}
    for modality, dim_in in train.dims.items():
        pair = [closed[modality], trained[modality]]
        members = [as_member(adapter, dim_in) for adapter in pair]
        width = sum(member["dim"] for member in members)
        made = MixtureAdapter(dim_in, width, members=members)
        for member, adapter in zip(made.members, pair, strict=True):
            member.load_state_dict(adapter.state_dict())
        made.weights.copy_(torch.tensor([1 - share, share]))
        adapters[modality] = made.eval()
    return adapters
