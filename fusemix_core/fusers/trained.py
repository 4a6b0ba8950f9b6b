"""`TrainedFuser`: a fuser that the engine trains by gradient, then calibrated."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fusemix_core.config import Training, from_dict, to_dict
from fusemix_core.context import FitContext
from fusemix_core.engine.checkpoint import run_digest
from fusemix_core.engine.loop import Trainer
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.randomness import seeded
from fusemix_core.engine.tables import on_device
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Fitted, L, Labelled
from fusemix_core.fusers.learning import FuserFit, ScaledFuser, with_places
from fusemix_core.mixups.none import NoMixup
from fusemix_core.mixups.targets import TargetMix
from fusemix_core.padded import Padded, as_rows
from fusemix_core.prediction import Task

DROP = 0.1
"""How often a row lacks a modality that it has, if some training rows lack one."""
SAMPLE = 4_096
"""Rows of training at most that a standardisation is learnt from,"""
TOKENS = 16_384
"""and about so many tokens, of fewer rows then."""


class TrainedFuser(ScaledFuser[L]):
    """A fuser that is trained by gradient. A subclass defines `raw`, and `prepare` if it learns
    anything from the rows before.

    Training minimises the task's loss. The weights that are kept have the lowest loss on the
    validation rows, after calibration, and these rows also calibrate the scores in the end.

    Args:
        inputs, outputs: as in `Fuser`.
        mix: FuseMix on latents and targets, with λ ~ Beta(mix, mix): one λ and one pairing of rows
            for all modalities. The loss is λ · loss(first target) + (1 - λ) · loss(second). 0 for
            no mixing.
        drop: how often a modality is left out of a training row, which keeps one at least. None
            is 0.1 if some training rows lack a modality, 0 if none does.
        training: settings of `Training` that differ from the class's, such as `{"epochs": 60}`.

    Raises:
        ConfigError: `mix` or `drop` is out of range, or `training` has an unknown setting.

    Example:
        class Mean(TrainedFuser[Tensor]):
            def __init__(self, inputs, outputs, *, mix=0.4, drop=None, training={}):
                super().__init__(inputs, outputs, mix, drop, training)
                self.standards = Modules(Standard(d) for d in inputs.values())
                self.heads = Modules(torch.nn.Linear(d, outputs) for d in inputs.values())

            def prepare(self, train):
                for modality, standard in zip(self.inputs, self.standards):
                    standard.learn(sample(train, modality))

            def raw(self, latents, present):
                scores = 0
                for k, modality in enumerate(self.inputs):
                    rows = latents[modality].masked_fill(~present[:, k, None], 0.0)
                    scores = scores + self.heads[k](self.standards[k](rows)) * present[:, k, None]
                return scores / present.sum(dim=1, keepdim=True)
    """

    settings: ClassVar[Training] = Training(
        epochs=24,
        lr=2e-3,
        weight_decay=0.1,
        warmup_steps=20,
        clip_norm=1.0,
        evaluate_every=2,
        patience=4,
        precision="float32",
        compile="off",
    )
    """How the class is trained by default."""

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        mix: float,
        drop: float | None,
        training: Mapping[str, Any],
    ) -> None:
        super().__init__(inputs, outputs)
        if mix < 0 or not 0 <= (drop or 0) < 1:
            raise ConfigError(
                f"A fuser has mix={mix} and drop={drop}.",
                "mix is 0 (none) or more; drop is from 0 to below 1.",
            )
        self.mix, self.drop = mix, drop
        self.training_settings = from_dict(Training, {**to_dict(self.settings), **training})

    def prepare(self, train: Labelled) -> None:  # noqa: B027  some learn nothing
        """Take what is needed from the training rows, once, before the first step. The same rows
        give the same."""

    @classmethod
    def suited(cls, task: Task) -> dict[str, Any]:
        """Options that the task decides, unless the user does."""
        return {}

    @classmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        train, validation = train.as_taken_by(cls), validation.as_taken_by(cls)
        with seeded(context.seed, context.device):
            fuser = cls(cls.widths(train), task.outputs, **{**cls.suited(task), **options})
            fuser.prepare(train)
            fuser = trained(fuser, train, validation, task, context)
        fuser.calibrate(validation, task)
        return Fitted(fuser.eval())

    @classmethod
    def widths(cls, rows: Labelled) -> dict[str, int]:
        """modality → the width of its latents, or of a token if the class takes tokens."""
        if "tokens" not in cls.uses:
            return rows.pairs.dims
        return {m: table.shape[-1] for m, table in rows.pairs.tables.items()}


def trained(
    fuser: TrainedFuser,
    train: Labelled,
    validation: Labelled,
    task: Task,
    context: FitContext,
    *,
    score_start: bool = False,
    **settings: Any,
) -> TrainedFuser:
    """The fuser after training, in eval mode on the CPU, not yet calibrated.

    It has checkpoints, resumes and may be interrupted as `Trainer` says. Call it inside `seeded`.

    Args:
        fuser: its weights are the start.
        train, validation: rows as the fuser takes them; see `Labelled.as_taken_by`.
        score_start: whether the weights that are given may be the ones kept.
        settings: of `Training`, in place of the fuser's.

    Raises:
        DataError: there are too few rows.
    """
    training = replace(fuser.training_settings, **settings)
    train = train.select((train.present.any(dim=1) & train.targets.rows).nonzero()[:, 0])
    mixup = TargetMix(alpha=fuser.mix, alpha_max=fuser.mix) if fuser.mix else NoMixup()
    gaps = not bool(train.present.all())
    drop = fuser.drop if fuser.drop is not None else DROP * gaps
    plan = plan_steps(len(train), mixup.rows_per_pair, training)
    described = {
        "fuser": type(fuser).__name__,
        "options": _plain({**fuser.options, "drop": drop}),
        "training": to_dict(training),
        "task": [type(task).__name__, _plain(task.options)],
        "targets": [_digest(part) for part in (train, validation)],
    }
    digest = run_digest(described, train.pairs, validation.pairs, context)
    pairs, held_out = on_device(with_places(train.pairs), validation.pairs, context.device)
    fit = FuserFit(
        fuser,
        train.targets.to(context.device),
        replace(validation, pairs=held_out),
        task,
        drop,
    )
    trainer = Trainer(fit, pairs, mixup, plan, context, digest, score_start=score_start)
    trainer.run()
    return fuser


def sample(rows: Labelled, modality: str) -> Tensor:
    """Latents float32 `[n, d]` of some of the rows that have the modality, from all over them; each
    token of an item is one."""
    column = rows.modalities.index(modality)
    there = rows.present[:, column].nonzero()[:, 0]
    each = math.prod(rows.pairs.tables[modality].shape[:-1])  # tokens of the longest item
    most = min(SAMPLE, max(1, TOKENS // each)) if modality in rows.pairs.tokens else SAMPLE
    if len(there) > most:
        there = there[torch.linspace(0, len(there) - 1, most).long()]
    found = rows.select(there).latents(modality)
    return found.values[found.mask] if isinstance(found, Padded) else as_rows(found)


def _digest(rows: Labelled) -> str:
    parts = [rows.targets.values, rows.targets.known]
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in parts)).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON has it: mappings as dicts."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
