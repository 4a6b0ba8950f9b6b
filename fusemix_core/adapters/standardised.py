"""Latents made comparable before a map: a signed power, unit norm, centre, scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.interfaces import Adapter

ROOT, PLAIN = 0.5, 1.0
"""Exponents of the signed power: square root for rectified features, or none."""


class StandardisedAdapter(Adapter):
    """An adapter of standardised latents u = (p(x) - centre) / scale.

    p(x) is the signed power of the latent, brought to unit norm: a square root (the Hellinger map)
    makes rectified, skewed features tractable. `prepare` chooses it and takes the other two from
    training latents.
    """

    def __init__(self, dim_in: int) -> None:
        super().__init__()
        self.register_buffer("power", torch.tensor(PLAIN))
        self.register_buffer("centre", torch.zeros(dim_in))
        self.register_buffer("scale", torch.ones(()))
        self.plain = True
        """Whether the power is 1, known without asking the device."""

    @torch.no_grad()
    def prepare(self, latents: Tensor, *, root: bool = True) -> None:
        """Set power, centre and scale by latents of training items, `[n, dim_in]`.

        `root`: whether the power may be the square root.
        """
        self.plain = not (root and skewed(latents))
        self.power.fill_(PLAIN if self.plain else ROOT)
        unit = self.unit(latents)
        self.centre.copy_(unit.mean(0))
        spread = (unit - self.centre).square().sum(1).mean().sqrt()
        self.scale.copy_(spread.clamp(min=1e-12))

    @torch.no_grad()
    def standardise_like(self, other: StandardisedAdapter) -> None:
        """Copy another adapter's power, centre and scale."""
        for name in ("power", "centre", "scale"):
            getattr(self, name).copy_(getattr(other, name))
        self.plain = other.plain

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
        if prefix + "power" in state_dict:
            self.plain = bool(state_dict[prefix + "power"] == PLAIN)

    def unit(self, latents: Tensor) -> Tensor:
        """p(x), `[n, dim_in]`, of unit norm."""
        if not self.plain:
            roots = latents.abs().pow(self.power)
            if torch.compiler.is_compiling() and not torch.is_grad_enabled():
                latents = roots * latents.sign()  # ONNX has no copysign
            else:
                latents = torch.copysign(roots, latents)
        return normalize(latents, dim=1, eps=1e-12)

    def standard(self, latents: Tensor) -> Tensor:
        """u, `[n, dim_in]`, of mean square norm about 1."""
        return (self.unit(latents) - self.centre) / self.scale


def skewed(latents: Tensor) -> bool:
    """Whether most features of `[n, d]` have a long right tail, as pooled rectified ones do."""
    spread = latents.std(0, correction=0).clamp(min=1e-12)
    skewness = ((latents - latents.mean(0)) / spread).pow(3).mean(0)
    return bool(skewness.median() > 1)
