"""The adapter `residual`: a linear path and a branch of random Fourier features beside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter

ROOT, PLAIN = 0.5, 1.0
"""Exponents of the signed power: square root for rectified features, or none."""


class ResidualAdapter(Adapter):
    """z = f(x) W + b with f(x) = [u, √(2/m) cos(u F + φ)], u = (p(x) - centre) / scale.

    p(x) is the signed power of the latent, brought to unit norm: a square root (the Hellinger map)
    makes rectified, skewed features tractable. `hidden` = m random Fourier features of a Gaussian
    kernel (Rahimi and Recht, 2007) follow the linear path; `basis` F and `phase` φ are drawn once,
    by `prepare`, and stay fixed, so that a map in closed form can use them too: W and b learn.
    While training, Gaussian noise with the deviation `noise` is added to the features: for a linear
    map that is the ridge which its closed form was fitted with.
    """

    def __init__(self, dim_in: int, dim_out: int, *, hidden: int = 0) -> None:
        super().__init__()
        if hidden < 0:
            raise ConfigError(f"residual: hidden is {hidden}; it must be 0 or more.")
        self.hidden = hidden
        self.register_buffer("power", torch.tensor(PLAIN))
        self.register_buffer("centre", torch.zeros(dim_in))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("basis", torch.zeros(dim_in, hidden))
        self.register_buffer("phase", torch.zeros(hidden))
        self.register_buffer("noise", torch.zeros(()))
        self.weight = nn.Parameter(torch.empty(dim_in + hidden, dim_out))
        self.bias = nn.Parameter(torch.zeros(dim_out))
        nn.init.normal_(self.weight, std=(dim_in + hidden) ** -0.5)

    @torch.no_grad()
    def prepare(self, latents: Tensor, generator: torch.Generator, bandwidth: float = 1.0) -> None:
        """Set power, centre, scale and the random features from training latents `[n, dim_in]`."""
        self.power.fill_(ROOT if skewed(latents) else PLAIN)
        unit = self._unit(latents)
        self.centre.copy_(unit.mean(0))
        spread = (unit - self.centre).square().sum(1).mean().sqrt()
        self.scale.copy_(spread.clamp(min=1e-12))
        drawn = torch.randn(self.basis.shape, generator=generator, dtype=self.basis.dtype)
        self.basis.copy_(bandwidth * drawn)
        turn = torch.rand(self.hidden, generator=generator, dtype=self.phase.dtype)
        self.phase.copy_(2 * math.pi * turn)

    def _unit(self, latents: Tensor) -> Tensor:
        return normalize(latents.sign() * latents.abs().pow(self.power), dim=1, eps=1e-12)

    def features(self, latents: Tensor) -> Tensor:
        """f(x), `[n, dim_in + hidden]`; the mean square norm of either part is about 1."""
        u = (self._unit(latents) - self.centre) / self.scale
        if not self.hidden:
            return u
        waves = torch.cos(torch.addmm(self.phase, u, self.basis)) * (2 / self.hidden) ** 0.5
        return torch.cat([u, waves], dim=1)

    def forward(self, latents: Tensor) -> Tensor:
        features = self.features(latents)
        if self.training:
            features = features + self.noise * torch.randn_like(features)
        return torch.addmm(self.bias, features, self.weight)

    def start_from(self, closed_form: Adapter) -> None:
        """Become a copy of another residual adapter, its number of random features included.

        Raises `ConfigError` for a map that this one can't express.
        """
        if not isinstance(closed_form, ResidualAdapter):
            raise ConfigError(
                f"A residual adapter can't start from a {type(closed_form).__name__}.",
                "Start from the aligner 'cca', or leave out the recipe's start.",
            )
        if closed_form.bias.shape != self.bias.shape:
            raise ConfigError(
                f"A residual adapter of width {len(self.bias)} can't start from a map of width "
                f"{len(closed_form.bias)}.",
                "Leave the recipe's `dim` unset, so that it is taken from the closed-form map.",
            )
        self.hidden, self.options = closed_form.hidden, dict(closed_form.options)
        for name, buffer in closed_form.named_buffers():
            setattr(self, name, buffer.detach().clone())
        self.weight = nn.Parameter(closed_form.weight.detach().clone())
        self.bias = nn.Parameter(closed_form.bias.detach().clone())


def skewed(latents: Tensor) -> bool:
    """Whether most features of `[n, d]` have a long right tail, as pooled rectified ones do."""
    spread = latents.std(0, correction=0).clamp(min=1e-12)
    skewness = ((latents - latents.mean(0)) / spread).pow(3).mean(0)
    return bool(skewness.median() > 1)
