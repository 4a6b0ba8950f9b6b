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
        def noisy(x: Tensor, own: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            rms = x[own].square().mean().sqrt().nan_to_num()
            return x + self.scale * rms * noise

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
        def quantised(x: Tensor, own: Tensor) -> Tensor:
            found = torch.zeros_like(x)
            found[own] = self._quantised(x[own], generator)
            return found

        return batch.changed(quantised)

    def _quantised(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """`[n, d]`, each column in bins of its own."""
        width = x.shape[1]
        shares = torch.rand(width, self.bins - 1, generator=generator, dtype=x.dtype)
        places = torch.rand(width, self.bins, generator=generator, dtype=x.dtype)
        if not len(x):
            return x.clone()
        columns = x.T.contiguous()
        low, high = columns.amin(1, keepdim=True), columns.amax(1, keepdim=True)
        edges = low + (high - low) * shares.to(x.device).sort(dim=1).values
        bin_of = torch.searchsorted(edges, columns)
        ends = torch.cat([low, edges, high], dim=1)
        values = ends[:, :-1] + (ends[:, 1:] - ends[:, :-1]) * places.to(x.device)
        return values.gather(1, bin_of).T
