"""Learning rates by epoch and step."""

from __future__ import annotations

import math
from dataclasses import replace

from fusemix_core.config import Training


def learning_rate(training: Training, epoch: int, index: int, steps_per_epoch: int) -> float:
    """The rate of step `index` (from 0) of `epoch` (from 0).

    `epoch-cosine` is the original's: in epoch 0 a ramp from `warmup_lr` by step, capped at `lr`;
    later the cosine from `lr` to `min_lr` at epoch / epochs, constant inside an epoch. A ramp
    longer than epoch 0 is therefore cut off: `complete_warmup` is what prevents it.
    `cosine` ramps for `warmup_steps`, then decays by step; `constant` only ramps.
    """
    if training.schedule == "epoch-cosine":
        if epoch == 0:
            ramp = (training.lr - training.warmup_lr) * index / max(training.warmup_steps, 1)
            return min(training.lr, training.warmup_lr + ramp)
        return _cosine(training, epoch / training.epochs)
    step, ramp_steps = epoch * steps_per_epoch + index, training.warmup_steps
    if step < ramp_steps:
        return training.warmup_lr + (training.lr - training.warmup_lr) * step / ramp_steps
    if training.schedule == "constant":
        return training.lr
    return _cosine(
        training, (step - ramp_steps) / max(training.epochs * steps_per_epoch - ramp_steps, 1)
    )


def _cosine(training: Training, share: float) -> float:
    fall = (training.lr - training.min_lr) / 2
    return training.min_lr + fall * (1 + math.cos(math.pi * share))


def complete_warmup(training: Training, steps_per_epoch: int) -> Training:
    """`training` with a warm-up short enough to complete.

    Under `epoch-cosine` that is the first epoch, under the others half of all steps.
    """
    limit = steps_per_epoch
    if training.schedule != "epoch-cosine":
        limit = training.epochs * steps_per_epoch // 2
    return replace(training, warmup_steps=min(training.warmup_steps, limit))


def progress(training: Training, epoch: int, index: int, steps_per_epoch: int) -> float:
    """The share of training done before a step, in [0, 1), as a mixup's own schedule sees it.

    It moves by epoch under `epoch-cosine`, as in the original, and by step otherwise.
    """
    if training.schedule == "epoch-cosine":
        return epoch / training.epochs
    return (epoch * steps_per_epoch + index) / (training.epochs * steps_per_epoch)
