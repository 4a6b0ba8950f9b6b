"""The `gradient` aligner: adapters trained by the engine, from scratch or from a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import torch

from fusemix_core.adapters.rows import for_adapters, width_of
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.aligners.features import sample
from fusemix_core.aligners.links import check_links
from fusemix_core.aligners.recalls import VALIDATION_ROWS
from fusemix_core.config import Part, Recipe, Training, to_dict
from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.engine.checkpoint import (
    checkpoint_folders,
    resumed_precision,
    run_digest,
)
from fusemix_core.engine.loop import Trainer
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.randomness import at_most, seeded
from fusemix_core.engine.state import ADAMW
from fusemix_core.engine.tables import on_device
from fusemix_core.errors import ConfigError, ContractError, UnknownNameError
from fusemix_core.interfaces import (
    Adapter,
    Aligner,
    Callback,
    FitContext,
    LatentTable,
    Objective,
    PairedLatents,
    dim_in,
    takes_tokens,
)
from fusemix_core.needs import check_needs
from fusemix_core.registry import registry

DIM = 512
"""The width of the shared space where neither the recipe nor a closed-form start tells it."""


class GradientAligner(Aligner):
    """Trains the recipe's adapter, mixup and objective by its optimiser; see `fusemix_core.engine`.

    With `recipe.start` that aligner is fitted first and each adapter takes over its map; the shared
    space then has that map's width, and the map itself is what is kept unless training scores
    better on the validation split. A warm-up takes half of all steps at most, so that
    it completes. Latents in float64 are trained on in float64.

    Where modalities are fixed the others' embeddings are as wide as theirs, whatever `recipe.dim`;
    a fixed adapter, too, is given the latents as mixed.

    Raises `ConfigError` for a recipe without adapter or objective, or whose parts can't work
    together (`check_needs`), or whose adapter can't start from a map; `UnknownNameError` for a
    `training.together` that is not a modality; `DataError` for too few pairs; `RunExistsError` and
    `ArtefactError` as `Trainer`.
    """

    uses = ("fixed",)

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        for modality in train.modalities:
            adapter_part(recipe, modality)
        objective_part(recipe)
        training = recipe.training or Training()
        if training.together and training.together not in train.modalities:
            raise UnknownNameError.of("modality of this run", training.together, train.modalities)
        check_links(train, context.fixed)
        check_needs(recipe, train.modalities, context.fixed, registry)
        if context.resume:
            precision = resumed_precision(training.precision, context.checkpoints)
            training = replace(training, precision=precision)
            recipe = replace(recipe, training=training)
        digest = run_digest(to_dict(recipe), train, validation, context)
        with seeded(context.seed, context.device):
            objective = self._objective(recipe)
            mixup = registry.build("mixup", recipe.mixup or Part("none"))
            plan = plan_steps(len(train), mixup.rows_per_pair, training)
            adapters = self._adapters(train, validation, recipe, context)
            fixed = {m: deepcopy(a) for m, a in context.fixed.items()}
            if "tokens" in objective.uses:
                _check_tokens(adapters | fixed, recipe)
            objective.start(adapters, train, validation, context)
            for module in (*adapters.values(), *fixed.values(), objective):
                module.to(train.dtype)
            pairs, held_out = on_device(
                replace(for_adapters(train, adapters | fixed), facts=_read_facts(objective, train)),
                at_most(validation, VALIDATION_ROWS, context.seed),
                context.device,
            )
            trained = self._run(
                Trainer(
                    self._alignment(adapters, objective, held_out, fixed, context.device),
                    pairs,
                    mixup,
                    plan,
                    context,
                    digest,
                    score_start=recipe.start is not None,
                    optimiser=recipe.optimiser or ADAMW,
                )
            )
            return {m: {**trained, **context.fixed}[m] for m in train.modalities}

    def _alignment(
        self,
        adapters: Mapping[str, Adapter],
        objective: Objective,
        validation: PairedLatents,
        fixed: Mapping[str, Adapter],
        device: torch.device,
    ) -> Alignment:
        """What is trained, and how it is scored."""
        return Alignment(adapters, objective, validation, fixed, device)

    def _run(self, trainer: Trainer) -> dict[str, Adapter]:
        return trainer.run()

    def _objective(self, recipe: Recipe) -> Objective:
        part = objective_part(recipe)
        objective, declared = registry.build("objective", part), registry.uses("objective", part)
        if more := [use for use in objective.uses if use not in declared]:
            raise ContractError(
                f"The objective '{part.name}'",
                f"a spec with '{more[0]}' in `uses`, as its class has; or with `wraps`, if it "
                "builds another objective",
                f"uses = {declared}",
            )
        return objective

    def _adapters(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        """New adapters of what is not fixed, with the map of `recipe.start` if there is one."""
        tables = {m: t for m, t in train.tables.items() if m not in context.fixed}
        if recipe.start is None:
            widths = [width_of(a, dim_in(a, train.tables[m])) for m, a in context.fixed.items()]
            dim = widths[0] if widths else recipe.dim or DIM
            adapters = {m: _build(adapter_part(recipe, m), t, dim) for m, t in tables.items()}
            for modality, adapter in adapters.items():
                if not takes_tokens(adapter):
                    adapter.prepare(sample(train, modality, context.seed))
            return adapters
        start = replace(context, checkpoints=None, resume=False, callbacks=_listeners(context))
        maps = registry.build("aligner", recipe.start).fit(train, validation, recipe, start)
        adapters = {}
        for modality, table in tables.items():
            part, map_ = adapter_part(recipe, modality), maps[modality]
            adapters[modality] = _build(part, table, width_of(map_, table.dim))
            try:
                adapters[modality].start_from(map_)
            except NotImplementedError as error:
                raise ConfigError(
                    f"The adapter '{part.name}' can't start from the map of '{recipe.start.name}'.",
                    "Take the adapter 'kernel', or leave out the recipe's start.",
                ) from error
        return adapters


def adapter_part(recipe: Recipe, modality: str) -> Part:
    """The adapter of a modality. Raises `ConfigError` for a recipe that names none."""
    return _named(recipe, "adapter", recipe.adapter_of(modality), "mlp")


def objective_part(recipe: Recipe) -> Part:
    """The objective. Raises `ConfigError` for a recipe that names none."""
    return _named(recipe, "objective", recipe.objective, "infonce")


def _named(recipe: Recipe, kind: str, part: Part | None, example: str) -> Part:
    if part is None:
        raise ConfigError(
            f"The recipe '{recipe.name}' trains by gradient but names no {kind}.",
            f"Example: --set {kind}={example}",
        )
    return part


def _check_tokens(adapters: Mapping[str, Adapter], recipe: Recipe) -> None:
    for modality, adapter in adapters.items():
        if not takes_tokens(adapter):
            raise ConfigError(
                f"The objective '{objective_part(recipe).name}' takes tokens, and the {modality} "
                "adapter gives none.",
                "Take an adapter with tokens, or another objective.",
            )


def _read_facts(objective: Objective, train: PairedLatents) -> dict[str, Fact]:
    """The facts that the objective reads: others need not go with each batch."""
    if "facts" in objective.uses:
        return train.facts
    read = {TRUST} & set(objective.uses)
    return {name: fact for name, fact in train.facts.items() if name in read}


def _listeners(context: FitContext) -> list[Callback]:
    """Who hears of the start: of its passes and evaluations only, and nobody in a resumed fit,
    which has reported them before."""
    folder = context.checkpoints
    if context.resume and folder is not None and checkpoint_folders(folder):
        return []
    return [c.through(only=("on_evaluation", "on_pairs")) for c in context.callbacks]


def _build(part: Part, table: LatentTable, dim_out: int) -> Adapter:
    target = registry.target_of(registry.check("adapter", part))
    return registry.build("adapter", part, dim_in(target, table), dim_out)
