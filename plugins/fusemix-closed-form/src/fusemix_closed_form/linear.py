"""Orthogonal Procrustes and ridge regression on standardised latents."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.aligners.best import Best
from fusemix_core.aligners.canonical import solve, top_singular
from fusemix_core.aligners.cca import moments_seen, prepared
from fusemix_core.aligners.links import check_links
from fusemix_core.aligners.moments import Moments
from fusemix_core.aligners.regression import RidgeSolution, met_fixed, regress
from fusemix_core.config import Recipe
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents
from fusemix_core.numerics import exact

_WITHOUT_WHITENING = 1e7
"""A ridge of so many times the trace leaves of CCA's whitening a ten-millionth."""


def standardised(
    train: PairedLatents, dim: int, context: FitContext
) -> tuple[dict[str, KernelAdapter], Moments]:
    """Adapters to `dim` without a map yet, and the moments of what they see, in one pass."""
    adapters = prepared(train, dim, 0, context)
    return adapters, moments_seen(adapters, train, context)


@torch.no_grad()
def give(adapter: KernelAdapter, map_: Tensor, mean: Tensor) -> None:
    """Make the adapter (u - mean) @ map_."""
    adapter.weight.copy_(map_)
    adapter.bias.copy_(-(mean @ map_))


class ProcrustesAligner(Aligner):
    """x ↦ (u - mean) U and y ↦ (v - mean) V, of the singular vectors U S Vᵀ of their
    cross-covariance: for two modalities of one width x U Vᵀ is the rotation of x that is nearest to
    y (Schönemann, 1966), and only the `dim` largest singular values count.

    u and v are the latents standardised as `cca` does. More than two modalities have the top
    eigenvectors of the block matrix of all cross-covariances.

    Where modalities are fixed, each other one is moved, turned and scaled onto their unit-norm
    embeddings y: x ↦ s (u - mean) U Vᵀ + mean(y), U S Vᵀ the cross-covariance of u and y and
    s = tr(S) / tr(Uᵀ C_uu U), the scale of least squares.
    """

    uses = ("fixed",)

    def __init__(self, *, dim: int = 384) -> None:
        if dim < 1:
            raise ConfigError(f"procrustes can't have dim={dim}.")
        self.dim = dim

    @exact()
    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        check_links(train, context.fixed)
        context = context.exact()
        if context.fixed:
            return self._onto_fixed(train, validation, recipe, context)
        dim = min(recipe.dim or self.dim, len(train) - 1, sorted(train.dims.values())[-2])
        adapters, moments = standardised(train, dim, context)
        # One ridge for all that dwarfs the covariances: what is whitened stays as it is.
        traces = [moments.covariance(k, k).trace().item() for k in range(len(adapters))]
        ridge = max(_WITHOUT_WHITENING * max(traces), 1e-12)
        solved = solve(moments, [ridge] * len(adapters), dim, context.seed)
        for k, adapter in enumerate(adapters.values()):
            give(adapter, solved.maps[k] * ridge**0.5, moments.mean(k))
        best = Best(validation, context)
        best.offer(adapters, {})
        return best.adapters

    def _onto_fixed(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        fixed = {m: deepcopy(a).to(context.device) for m, a in context.fixed.items()}
        fitted: dict[str, Adapter] = dict(context.fixed)
        for modality in (m for m in train.modalities if m not in fixed):
            pairs = met_fixed(train.only([modality, *fixed]), modality)
            solution = RidgeSolution.of(pairs, modality, fixed, 0, context)
            dim = min(recipe.dim or self.dim, *solution.cross.shape)
            left, values, right = top_singular(solution.cross, dim, context.seed)
            scale = values.sum() / ((solution.covariance @ left) * left).sum().clamp(min=1e-12)
            solution.give(scale * left @ right.T)
            best = Best(validation, context)
            best.offer({modality: solution.adapter, **fixed}, {})
            fitted[modality] = best.adapters[modality]
        return {m: fitted[m] for m in train.modalities}


class RidgeAligner(Aligner):
    """Every other modality regressed on one, whose own latents are only standardised.

    W = (C_xx + r I)⁻¹ C_xt of latents standardised as `cca` does, r = ridge · tr(C_xx) / n.
    target: the modality that stays; "" is the last. ridges: what validation chooses from.

    Where modalities are fixed these are what the others are regressed on, by their unit-norm
    embeddings; `target` is then left unset.
    """

    uses = ("fixed",)

    def __init__(self, *, target: str = "", ridges: Sequence[float] = (1.0, 10.0, 100.0)) -> None:
        if not ridges or min(ridges) <= 0:
            raise ConfigError(f"ridge can't have ridges={list(ridges)}.", "They are above 0.")
        self.target, self.ridges = target, tuple(ridges)

    @exact()
    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        check_links(train, context.fixed)
        context = context.exact()
        if context.fixed:
            if self.target:
                raise ConfigError("ridge has a target, and modalities are fixed.", "Choose one.")
            return regress(train, validation, context, (0,), self.ridges, whiten=False)
        names = train.modalities
        if self.target and self.target not in names:
            raise UnknownNameError.of("modality", self.target, names)
        target = names.index(self.target) if self.target else len(names) - 1
        adapters, moments = standardised(train, train.dims[names[target]], context)
        best = Best(validation, context)
        for ridge in self.ridges:
            for k, adapter in enumerate(adapters.values()):
                covariance = moments.covariance(k, k)
                if k == target:
                    map_ = torch.eye(len(covariance)).to(covariance)
                else:
                    r = max(ridge * covariance.trace().item() / len(train), 1e-12)
                    covariance.diagonal().add_(r)
                    map_ = torch.linalg.solve(covariance, moments.covariance(k, target))
                give(adapter, map_, moments.mean(k))
            best.offer(adapters, {"ridge": ridge})
        return best.adapters
