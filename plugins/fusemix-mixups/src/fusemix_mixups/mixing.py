"""Rows mixed with other rows of the batch."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Batch, Mixup
from fusemix_core.mixups.fusemix import pairing
from fusemix_core.paired import sent

_STRAIGHT = 1e-3
"""Radians: closer directions, or opposite ones, have no great circle worth following."""


class _Mixing(Mixup):
    """λ · first + (1 - λ) · second of pairs of rows, the same for all modalities; λ ~ Beta(α, α).

    A mixed row has the modalities that both its sources have, zeros elsewhere. Raises `ConfigError`
    for an alpha that is not positive.
    """

    def __init__(self, *, alpha: float = 1.0) -> None:
        if not alpha > 0:
            raise ConfigError(
                f"A mixup can't have alpha={alpha}.", "For no mixing, set mixup=none."
            )
        self.alpha = alpha

    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        first, second = self.pairs(batch.present_here(), generator)
        weights = self.weights(len(first), generator)[:, None]

        def mix(x: Tensor, y: Tensor, own: Tensor) -> Tensor:
            return self.mix(x, y, sent(own.to(x.dtype), x.device))  # mps has no float64

        return batch.mixed(mix, first, second, each=[weights])

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` of λ, float64. Torch has no public Beta that takes a generator: its draw seeds
        numpy's."""
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
        return torch.from_numpy(np.random.default_rng(seed).beta(self.alpha, self.alpha, count))

    def weights(self, count: int, generator: torch.Generator) -> Tensor:
        """λ of each mixed row: one for all."""
        return self.draw(1, generator).expand(count)

    def sources(self, present: Tensor) -> tuple[Tensor, Tensor] | None:
        return pairing(present)

    def pairs(self, present: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The rows that are mixed, for bool CPU `present [n, K]`: the halves of the batch."""
        return pairing(present)

    @abstractmethod
    def mix(self, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        """Mixed latents `[n, d]` for λ `[n, 1]`."""


class PerSampleMixup(_Mixing):
    """FuseMix with a λ of its own for each row, as mixup has it (arXiv 1710.09412)."""

    rows_per_pair = 2

    def weights(self, count: int, generator: torch.Generator) -> Tensor:
        return self.draw(count, generator)

    def mix(self, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        return weight * first + (1 - weight) * second


class PermutedMixup(_Mixing):
    """Each row with another of the batch, drawn by permutation: n rows stay n rows.

    One λ a step. Every row occurs twice, once with λ and once with 1 - λ. Partners are drawn among
    rows with the same modalities.
    """

    def sources(self, present: Tensor) -> None:
        return None  # they are drawn

    def pairs(self, present: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = len(present)
        order = torch.randperm(n, generator=generator)
        _, group = present.unique(dim=0, return_inverse=True)
        # Rows sorted by group, in place and in drawn order, stand beside rows of their own group.
        own = group.argsort(stable=True)
        partner = order[group[order].argsort(stable=True)]
        second = torch.empty_like(own)
        second[own] = partner
        return torch.arange(n), second

    def mix(self, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        return weight * first + (1 - weight) * second


class GeodesicMixup(_Mixing):
    """Halves mixed along the great circle between their directions (arXiv 2203.03897).

    With unit rows u, v at the angle θ the direction is (sin(λθ) u + sin((1 - λ)θ) v) / sin θ; the
    norm is λ|x| + (1 - λ)|y|. Where θ is nearly 0 or π rows are mixed straight. One λ a step.
    """

    rows_per_pair = 2

    def mix(self, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        u, v = normalize(first, dim=1), normalize(second, dim=1)
        angle = (u * v).sum(1, keepdim=True).clamp(-1, 1).arccos()
        arc = ((weight * angle).sin() * u + ((1 - weight) * angle).sin() * v) / angle.sin()
        straight = angle.sin() < _STRAIGHT
        direction = torch.where(straight, weight * u + (1 - weight) * v, arc)
        norms = (x.norm(dim=1, keepdim=True) for x in (first, second))
        of_first, of_second = norms
        return direction * (weight * of_first + (1 - weight) * of_second)
