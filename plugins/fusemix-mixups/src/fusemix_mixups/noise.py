"""Rows changed by themselves: no row is mixed with another."""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Batch, Mixup


class GaussianNoise(Mixup):
    """x + scale · rms · ε, ε ~ N(0, 1), rms the root mean square of the modality's batch.

    Noise is drawn for each modality: shared noise could be aligned. Padding stays padding, and has
    no part in the rms. Raises `ConfigError` for a negative scale.
    """

    def __init__(self, *, scale: float = 0.1) -> None:
        if scale < 0:
            raise ConfigError(f"gaussian can't have scale={scale}.", "It is 0 or more.")
        self.scale = scale

    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        drawn = _on(batch.links.device, generator)

        def noisy(x: Tensor, own: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=drawn, dtype=x.dtype, device=x.device)
            own_values = x.masked_fill(~own[..., None], 0)
            mean = own_values.square().sum() / (own.sum() * x.shape[-1])
            return x + self.scale * mean.sqrt().nan_to_num() * noise

        return batch.changed(noisy)


class RandomQuantisation(Mixup):
    """Each feature cut into `bins` at edges drawn at random, and each value replaced by a number
    drawn in its bin (Wu et al., 2023, arXiv 2212.08663), the same for all values of a bin.

    Edges are drawn for each feature between its least and largest value in the batch; a feature of
    tokens has the same bins in all of them. Raises `ConfigError` for fewer than two bins.
    """

    def __init__(self, *, bins: int = 16) -> None:
        if bins < 2:
            raise ConfigError(f"quantised can't have bins={bins}.", "There are 2 or more.")
        self.bins = bins

    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        drawn = _on(batch.links.device, generator)

        def quantised(x: Tensor, own: Tensor) -> Tensor:
            values = self._quantised(x.flatten(0, -2), own.flatten(), drawn)
            return values.reshape(x.shape)

        return batch.changed(quantised)

    def _quantised(self, x: Tensor, own: Tensor, generator: torch.Generator) -> Tensor:
        """Rows `[n, d]`, each column in bins of its own, from the least to the largest value of the
        rows that are there, bool `[n]`."""
        width, how = x.shape[1], {"generator": generator, "dtype": x.dtype, "device": x.device}
        shares, places = (
            torch.rand(width, self.bins - 1, **how),
            torch.rand(width, self.bins, **how),
        )
        columns, absent = x.T.contiguous(), ~own
        low = columns.masked_fill(absent, torch.inf).amin(1, keepdim=True)
        high = columns.masked_fill(absent, -torch.inf).amax(1, keepdim=True)
        edges = low + (high - low) * shares.sort(dim=1).values
        bin_of = torch.searchsorted(edges, columns)
        ends = torch.cat([low, edges, high], dim=1)
        values = ends[:, :-1] + (ends[:, 1:] - ends[:, :-1]) * places
        return values.gather(1, bin_of).T


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The generator itself for the CPU; for another device one of its own, which the next draw
    seeds: drawing there takes no time, and nothing has to be copied."""
    if device.type == "cpu":
        return generator
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    return torch.Generator(device=device).manual_seed(seed)
