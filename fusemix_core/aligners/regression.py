"""Fitting in closed form to modalities that stay fixed: regularised least squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.adapters.kernel import LINEAR, KernelAdapter
from fusemix_core.adapters.rows import for_adapters
from fusemix_core.aligners.best import Best
from fusemix_core.aligners.features import (
    LEAST_RIDGE,
    kernel_norm,
    prepared_adapter,
    variance_of,
)
from fusemix_core.aligners.moments import moments_of
from fusemix_core.aligners.recalls import VALIDATION_ROWS
from fusemix_core.engine.randomness import at_most
from fusemix_core.errors import DataError
from fusemix_core.interfaces import Adapter, FitContext, Padded, PairedLatents
from fusemix_core.numerics import exact


@exact()
def regress(
    train: PairedLatents,
    validation: PairedLatents,
    context: FitContext,
    landmarks: Sequence[int],
    ridges: Sequence[float],
    kernel_pairs: int = 100_000,
    whiten: bool = True,
    linear: float = LINEAR,
    root: bool = True,
) -> dict[str, Adapter]:
    """Each modality that is not fixed regressed on the embeddings of those that are.

    W = (C_ff + r P)⁻¹ C_fy, of features f as `cca` has them and unit-norm fixed embeddings y, with
    its P and r; the embedding is (f - mean) W A + mean(y). `whiten` makes
    A = (C_yy + t I)^(-½), t the mean eigenvalue of C_yy: directions in which the fixed embeddings
    vary little then count for more, as in CCA, and cosines find more of the partners. Without it A
    is I. A row with several fixed modalities is a pair with each, each about its own mean.

    landmarks (0: linear) and ridges are what validation chooses from, for each modality by itself.
    Linear maps take all rows in one pass, a kernel's, whose linear part is
    `linear`, at most `kernel_pairs`, drawn by the seed. `root` is as in `CCAAligner`.
    Raises `DataError` for a modality that no training row links with a fixed one.
    """
    fitted: dict[str, Adapter] = dict(context.fixed)
    fixed = {m: deepcopy(a).to(context.device) for m, a in context.fixed.items()}
    for modality in train.modalities:
        if modality in fixed:
            continue
        own = [modality, *fixed]
        met = met_fixed(train.only(own), modality)
        best = Best(at_most(validation.only(own), VALIDATION_ROWS, context.seed), context)
        for count in landmarks:
            pairs = at_most(met, kernel_pairs, context.seed) if count else met
            solution = RidgeSolution.of(pairs, modality, fixed, count, context, linear, root)
            goal = solution.cross @ solution.whitening() if whiten else solution.cross
            for ridge in ridges:
                solution.give(solution.solve(goal, ridge / len(pairs)))
                chosen = {"landmarks": len(solution.adapter.landmarks), "ridge": ridge}
                best.offer({modality: solution.adapter, **fixed}, chosen)
        fitted[modality] = best.adapters[modality]
    return {m: fitted[m] for m in train.modalities}


def met_fixed(pairs: PairedLatents, modality: str) -> PairedLatents:
    """The rows that have the first modality and one of the others, which are fixed."""
    there = pairs.links >= 0
    rows = (there[:, 0] & there[:, 1:].any(1)).nonzero()[:, 0]
    if not len(rows):
        raise DataError(
            f"No training pair links {modality} with {' or '.join(pairs.modalities[1:])}.",
            "Closed forms fit a modality to its partners that are fixed: add such pairs, or train "
            "by gradient.",
        )
    return pairs.select(rows)


@dataclass
class RidgeSolution:
    """What a closed form needs of one modality's features f and its partners' fixed embeddings y.

    adapter: of the modality, whose map `give` sets. norm: what a ridge counts a kernel's weights
    by, `[k, k]`. mean, covariance: of f, `[k]` and `[k, k]`; cross: `[k, d]` of f with y; target,
    spread: mean `[d]` and covariance `[d, d]` of y.
    """

    adapter: KernelAdapter
    norm: Tensor | None
    mean: Tensor
    covariance: Tensor
    cross: Tensor
    target: Tensor
    spread: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        pairs: PairedLatents,
        modality: str,
        fixed: Mapping[str, Adapter],
        landmarks: int,
        context: FitContext,
        linear: float = LINEAR,
        root: bool = True,
    ) -> RidgeSolution:
        """In one pass over `pairs`, of which the first modality is to be fitted."""
        device, pairs = context.device, for_adapters(pairs, fixed)
        first = embeddings(fixed, pairs.batch(torch.arange(1), device).latents)
        dim = next(iter(first.values())).shape[1]
        seed = context.seed * 1000
        adapter = prepared_adapter(pairs, modality, dim, landmarks, seed, device, linear, root=root)
        seen = [lambda x: adapter.features(x.float())]
        seen += [lambda x, a=a: normalize(a(x.to(torch.float32)), dim=1) for a in fixed.values()]
        dims = [len(adapter.weight), *(y.shape[1] for y in first.values())]
        moments = moments_of(pairs, context, seen, dims)
        ks = range(1, 1 + len(fixed))
        shares = [moments.met(0, k) / sum(moments.met(0, m) for m in ks) for k in ks]

        def mean_over(values: Sequence[Tensor]) -> Tensor:
            parts = [share * value for share, value in zip(shares, values, strict=True)]
            return sum(parts, torch.zeros_like(values[0]))

        return cls(
            adapter,
            kernel_norm(adapter),
            moments.mean(0),
            moments.covariance(0, 0),
            mean_over([moments.covariance(0, k) for k in ks]),
            mean_over([moments.mean(k) for k in ks]),
            mean_over([moments.covariance(k, k) for k in ks]),
        )

    def solve(self, goal: Tensor, ridge: float) -> Tensor:
        """(C_ff + r P)⁻¹ goal, `[k, d]`: P is a kernel's norm, else I, and r = ridge times the
        variance in that norm."""
        covariance = (self.covariance + self.covariance.T) / 2
        if self.norm is None:
            covariance.diagonal().add_(max(ridge * covariance.trace().item(), LEAST_RIDGE))
        else:
            covariance.add_(self.norm, alpha=max(ridge * variance_of(self.norm), LEAST_RIDGE))
        return torch.cholesky_solve(goal, torch.linalg.cholesky(covariance))

    def whitening(self) -> Tensor:
        """(C_yy + t I)^(-½), t the mean eigenvalue: symmetric `[d, d]`."""
        values, vectors = torch.linalg.eigh((self.spread + self.spread.T) / 2)
        values = values.clamp(min=0) + values.mean().clamp(min=1e-12)
        return (vectors * values.rsqrt()) @ vectors.T

    @torch.no_grad()
    def give(self, map_: Tensor) -> None:
        """Make the adapter (f - mean) @ map_ + target."""
        self.adapter.bias.copy_(self.target - self.mean @ map_)
        self.adapter.weight.copy_(map_)


def embeddings(
    fixed: Mapping[str, Adapter], latents: Mapping[str, Tensor | Padded]
) -> dict[str, Tensor]:
    """Unit-norm float32 embeddings of the fixed modalities of a batch, modality → `[n, d]`."""
    return {m: normalize(a(latents[m].to(torch.float32)), dim=1) for m, a in fixed.items()}
