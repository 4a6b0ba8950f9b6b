"""Learning rates by epoch and step."""

from __future__ import annotations

import math
from dataclasses import replace

from fusemix_core.config import Training

BY_EPOCH = ("epoch-cosine", "epoch-cosine-cut")


def learning_rate(training: Training, epoch: int, index: int, steps_per_epoch: int) -> float:
    """The rate of step `index` (from 0) of `epoch` (from 0).

    `epoch-cosine` is the paper's: a ramp from `warmup_lr` by step, and the cosine from `lr` to
    `min_lr` at epoch / epochs, constant inside an epoch; the lower of the two. In
    `epoch-cosine-cut` the ramp ends with epoch 0, however far it got, as it does in the original
    implementation: on data of few steps an epoch the rate then jumps to its full height.
    `cosine` ramps for `warmup_steps`, then decays by step; `constant` only ramps.
    """
    if training.schedule in BY_EPOCH:
        cut = training.schedule == "epoch-cosine-cut"
        step = index if cut else epoch * steps_per_epoch + index
        slope = (training.lr - training.warmup_lr) / max(training.warmup_steps, 1)
        ramp = min(training.lr, training.warmup_lr + slope * step)
        if epoch == 0:
            return ramp
        cosine = _cosine(training, epoch / training.epochs)
        return cosine if cut else min(cosine, ramp)
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
    """`training` with a warm-up of half of all steps at most, so that it completes (but for
    `epoch-cosine-cut`)."""
    if training.schedule == "epoch-cosine-cut":
        return training
    limit = training.epochs * steps_per_epoch // 2
    return replace(training, warmup_steps=min(training.warmup_steps, limit))


def progress(training: Training, epoch: int, index: int, steps_per_epoch: int) -> float:
    """The share of training done before a step, in [0, 1), as a mixup's own schedule sees it.

    It moves by epoch in the `epoch-cosine` schedules, as in the original, and by step otherwise.
    """
    if training.schedule in BY_EPOCH:
        return epoch / training.epochs
    return (epoch * steps_per_epoch + index) / (training.epochs * steps_per_epoch)
