"""The `fusemix` mixup: each batch is halved and the halves are mixed, alike in every modality."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Batch, Mixup


def alpha_at(progress: float, alpha: float, alpha_max: float, schedule: str) -> float:
    """The Beta parameter after the share `progress` of training, 0 ≤ progress < 1.

    `constant` stays at `alpha`; `cosine` and `exponential` go from `alpha` towards `alpha_max`,
    which as in the original they would reach only at progress 1.
    """
    if schedule == "cosine":
        return alpha_max + (alpha - alpha_max) / 2 * (1 + math.cos(math.pi * progress))
    if schedule == "exponential":
        return alpha * (alpha_max / alpha) ** progress
    return alpha


def pairing(present: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows are mixed: two int64 index tensors `[n // 2]` for bool `present [n, K]`.

    Complete rows are cut in a first and a second half, as the original does. A mixed row has only
    the modalities that both its sources have, so where entries are missing each group of rows with
    the same modalities is halved by itself, and the odd rows left over are halved together.
    """
    n, device = len(present), present.device
    if bool(present.all()):
        rows = torch.arange(n, device=device)
        return rows[: n // 2], rows[n // 2 : 2 * (n // 2)]
    _, group = present.unique(dim=0, return_inverse=True)
    first, second, rest = [], [], []
    for g in range(int(group.max()) + 1):
        rows = (group == g).nonzero()[:, 0]
        half = len(rows) // 2
        first.append(rows[:half])
        second.append(rows[half : 2 * half])
        rest.append(rows[2 * half :])
    left = torch.cat(rest)
    half = len(left) // 2
    return torch.cat([*first, left[:half]]), torch.cat([*second, left[half : 2 * half]])


class FuseMixMixup(Mixup):
    """FuseMix (arXiv 2312.10144): lambda · first + (1 - lambda) · second, one lambda per step.

    lambda ~ Beta(a, a) is drawn once for the whole batch and all modalities; a goes from `alpha`
    to `alpha_max` by `schedule` (`constant`, `cosine`, `exponential`; see `alpha_at`). `[n]` rows
    become `[n // 2]`; links get both sources. Raises `ConfigError` for an alpha that is not
    positive: no mixing is the mixup `none`, never a silent default.
    """

    rows_per_pair = 2

    def __init__(
        self, *, alpha: float = 1.0, alpha_max: float = 1.0, schedule: str = "constant"
    ) -> None:
        if not (alpha > 0 and alpha_max > 0):
            raise ConfigError(
                f"fusemix needs alpha and alpha_max above 0, not {alpha} and {alpha_max}.",
                "For no mixing, set mixup=none.",
            )
        if schedule not in ("constant", "cosine", "exponential"):
            raise ConfigError(
                f"fusemix has no alpha schedule '{schedule}'.",
                "Schedules: constant, cosine, exponential.",
            )
        self.alpha, self.alpha_max, self.schedule = alpha, alpha_max, schedule

    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        return self.mix(batch, self.draw(generator, progress))

    def sources(self, present: Tensor) -> tuple[Tensor, ...]:
        return pairing(present)

    def draw(self, generator: torch.Generator, progress: float) -> float:
        """One lambda. Torch has no public Beta that takes a generator: its draw seeds numpy's."""
        alpha = alpha_at(progress, self.alpha, self.alpha_max, self.schedule)
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
        return float(np.random.default_rng(seed).beta(alpha, alpha))

    def mix(self, batch: Batch, weight: float) -> Batch:
        """The batch mixed with lambda = `weight`, the share of the first of the two rows."""
        first, second = pairing(batch.present_here())
        return batch.mixed(lambda x, y: weight * x + (1 - weight) * y, first, second)
