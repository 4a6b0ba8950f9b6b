"""The `cca` aligner: regularised canonical correlation of K modalities, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.adapters.kernel import LINEAR, KernelAdapter
from fusemix_core.aligners.best import Best
from fusemix_core.aligners.canonical import solve
from fusemix_core.aligners.features import (
    LEAST_RIDGE,
    kernel_factor,
    orthogonal,
    prepared_adapter,
)
from fusemix_core.aligners.links import check_links
from fusemix_core.aligners.moments import Moments, moments_of
from fusemix_core.aligners.recalls import VALIDATION_ROWS
from fusemix_core.aligners.regression import regress
from fusemix_core.config import Recipe
from fusemix_core.engine.randomness import at_most
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents

LANDMARKS = 4_096
"""Landmarks of a modality at most: a fit takes the square of them in time for each pair."""


class CCAAligner(Aligner):
    """Regularised CCA of each modality's features, for K ≥ 2 modalities.

    Features are the standardised latents (`KernelAdapter` without landmarks: linear CCA) or those
    of its kernel (with landmarks: kernel CCA, exact where all training items are landmarks, else
    Nyström's). Of the kernel they are f(x) = R⁻¹ k(x), R Rᵀ = k(landmarks, landmarks), so that
    products of features are kernel values and the ridge is that of the kernel's own norm.

    With whitened features w_k = L_k⁻¹ (f_k - mean), L_k L_kᵀ = C_kk + r_k I, the maps are the top
    eigenvectors of the block matrix R with R_km = L_k⁻¹ C_km L_m⁻ᵀ off the diagonal and zero on it
    (MAXVAR, Kettenring 1971); for K = 2 that is regularised CCA exactly. Column i is weighted by
    its correlation to the `power`. The ridge is r_k = ridge · tr(C_kk) / n.

    landmarks: how many a modality has at most, 0 for linear CCA; by default both, linear CCA first,
    and validation chooses. linear: the linear part of the kernel. ridges, powers: what validation
    chooses from, in the order they are tried; a map that is better than all before it is reported
    as an evaluation at step 0. dim: width of the space, at most what the data determine: one less
    than the pairs, and the second widest modality. Rows that lack a modality count for those they
    have.

    Linear CCA takes all pairs, in one pass from which every ridge and power is solved; only how
    latents are standardised comes from a sample of a few thousand items. The kernel takes at most
    `kernel_pairs`, drawn by the seed: each costs it some three times `landmarks`² multiplications.
    It gains by more of them (see docs/decisions/0010-all-pairs-in-one-pass.md).

    Where modalities are fixed there is one side to fit, and that is regression of the same features
    (`regress`) with the same `landmarks`, `ridges` and `kernel_pairs`.
    """

    uses = ("fixed",)

    def __init__(
        self,
        *,
        landmarks: int | None = None,
        linear: float = LINEAR,
        dim: int = 384,
        ridges: Sequence[float] = (3.0, 1.0, 10.0),
        powers: Sequence[float] = (1.0, 0.75, 1.5),
        kernel_pairs: int = 100_000,
    ) -> None:
        if min(dim, kernel_pairs) < 1 or not powers or min(landmarks or 0, linear) < 0:
            raise ConfigError(
                "cca needs dim and kernel_pairs ≥ 1, at least one power, landmarks and linear ≥ 0.",
                "Example: --set aligner.dim=384",
            )
        if not ridges or min(ridges) <= 0:
            raise ConfigError(
                "cca needs at least one ridge, all above 0.",
                "Example: --set aligner.ridges=[1,3,10]",
            )
        self.landmarks, self.linear = landmarks, linear
        self.dim, self.kernel_pairs = dim, kernel_pairs
        self.ridges, self.powers = tuple(ridges), tuple(powers)

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        check_links(train, context.fixed)
        context = context.exact()
        validation = at_most(validation, VALIDATION_ROWS, context.seed)
        tried = (0, LANDMARKS) if self.landmarks is None else (self.landmarks,)
        if context.fixed:
            return regress(
                train,
                validation,
                context,
                tried,
                self.ridges,
                self.kernel_pairs,
                linear=self.linear,
            )
        best = Best(validation, context)
        for landmarks in tried:
            some = at_most(train, self.kernel_pairs, context.seed) if landmarks else train
            dim = min(recipe.dim or self.dim, len(some) - 1, sorted(some.dims.values())[-2])
            self._try(prepared(some, dim, landmarks, context, self.linear), some, best, context)
        return best.adapters

    def _try(
        self,
        adapters: dict[str, KernelAdapter],
        train: PairedLatents,
        best: Best,
        context: FitContext,
    ) -> None:
        """Offer the maps of every ridge and power on these features."""
        dim = len(next(iter(adapters.values())).bias)
        kernels = [kernel_factor(a) for a in adapters.values()]
        moments = moments_seen(adapters, kernels, train, context)
        spread = [moments.covariance(k, k) for k in range(len(adapters))]
        for ridge in self.ridges:
            ridges = [max(ridge * c.trace().item() / len(train), LEAST_RIDGE) for c in spread]
            solved = solve(moments, ridges, dim, context.seed)
            maps = [
                Affine.of(solved.maps[k], moments.mean(k), spread[k], kernels[k])
                for k in range(len(adapters))
            ]
            for power in self.powers:
                weights = solved.correlations**power
                for adapter, map_ in zip(adapters.values(), maps, strict=True):
                    map_.give(adapter, weights)
                landmarks = max(len(a.landmarks) for a in adapters.values())
                best.offer(adapters, {"landmarks": landmarks, "ridge": ridge, "power": power})


def prepared(
    train: PairedLatents,
    dim: int,
    landmarks: int,
    context: FitContext,
    linear: float = LINEAR,
) -> dict[str, KernelAdapter]:
    """Adapters without a map yet, each with `landmarks` of its training items or all of them."""
    if landmarks:  # few items, such as labels, span no wider space
        counts = [min(landmarks, len(train.linked(m))) for m in train.modalities]
        dim = min(dim, sorted(counts)[-2])
    adapters = {}
    for number, modality in enumerate(train.modalities):
        seed = context.seed * 1000 + number
        adapters[modality] = prepared_adapter(
            train, modality, dim, landmarks, seed, context.device, linear
        )
    return adapters


def moments_seen(
    adapters: dict[str, KernelAdapter],
    kernels: Sequence[Tensor | None],
    train: PairedLatents,
    context: FitContext,
) -> Moments:
    """The moments of the adapters' features over all pairs, those of kernels times R⁻¹."""
    parts = list(zip(adapters.values(), kernels, strict=True))
    dims = [adapter.weight.shape[0] for adapter, _ in parts]
    if all(kernel is None for kernel in kernels):
        # The standard latents are affine in the unit ones: one step for the moments, not a row.
        moments = moments_of(train, context, [lambda x, a=a: a.unit(x.float()) for a, _ in parts])
        moments.standardise([a.centre for a, _ in parts], [a.scale for a, _ in parts])
        return moments
    features = [lambda x, a=a, r=r: orthogonal(a.features(x.float()), r) for a, r in parts]
    return moments_of(train, context, features, dims)


@dataclass(frozen=True)
class Affine:
    """The map (f - mean) @ map_ of features as an adapter has them: weight `[features, dim]` and
    bias `[dim]`; energy `[dim]` is the mean square of each column of embeddings."""

    weight: Tensor
    bias: Tensor
    energy: Tensor

    @classmethod
    def of(cls, map_: Tensor, mean: Tensor, covariance: Tensor, kernel: Tensor | None) -> Affine:
        energy = ((covariance @ map_) * map_).sum(0)
        bias = -(mean @ map_)
        if kernel is not None:
            map_ = torch.linalg.solve_triangular(kernel.T, map_.to(kernel.dtype), upper=True)
        return cls(map_, bias, energy)

    @torch.no_grad()
    def give(self, adapter: KernelAdapter, weights: Tensor) -> None:
        """Set an adapter's map, its columns weighted, and scaled so that the mean square norm of
        embeddings is 1: the step of an optimiser then means the same whatever the data."""
        weights = weights / (self.energy * weights.square()).sum().clamp(min=1e-24).sqrt()
        adapter.weight.copy_(self.weight * weights)
        adapter.bias.copy_(self.bias * weights)
