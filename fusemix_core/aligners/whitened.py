"""The whitened cross-covariances of K modalities, as a matrix or as what multiplies thin blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from fusemix_core.aligners.crosses import Matrices, Rows
from fusemix_core.aligners.moments import Moments

_PROBES, _TOLERANCE = 32, 1e-2
"""Directions that a float32 factor is checked with, and how far from 1 their variance may be."""

_SHORT = 1_500
"""Up to this order float64 costs little."""


@dataclass(frozen=True)
class Whitened:
    """L_m⁻¹ C_mk L_k⁻ᵀ for k ≠ m, with L_k L_kᵀ = C_kk + r_k P_k.

    factors: L_k, lower triangular `[d_k, d_k]`. crosses: C_km of the modalities that meet. wide:
    both are float32 and nothing of their size is made of them, as an
    iteration on thin blocks needs less than the whitened matrix.
    """

    factors: list[Tensor]
    crosses: Matrices | Rows
    wide: bool

    @classmethod
    def of(
        cls,
        moments: Moments,
        ridges: Sequence[float],
        penalties: Sequence[Tensor | None],
        wide: bool,
    ) -> Whitened:
        count = len(moments.dims)
        factors = [
            factor(moments.covariance(k, k), ridges[k], penalties[k], wide) for k in range(count)
        ]
        return cls(factors, moments.crosses(factors[0].dtype), wide)

    @property
    def dims(self) -> list[int]:
        return [len(factor) for factor in self.factors]

    def __len__(self) -> int:
        return sum(self.dims)

    def cross(self, k: int, m: int) -> Tensor:
        """L_k⁻¹ C_km L_m⁻ᵀ, `[d_k, d_m]`, k < m."""
        half = solve_triangular(self.factors[k], self.crosses.matrix(k, m), upper=False)
        return solve_triangular(self.factors[m], half.T, upper=False).T

    def times(self, m: int, k: int, block: Tensor) -> Tensor:
        """L_m⁻¹ C_mk L_k⁻ᵀ times a block `[d_k, b]` of directions of modality k."""
        return self._into(m, self.crosses.times(m, k, self._out_of(k, block)))

    def blocks(self) -> Tensor:
        """The matrix of all: symmetric `[Σ d_k, Σ d_k]`, zero on the diagonal's blocks."""
        like, dims = self.factors[0], self.dims
        matrix = like.new_zeros(len(self), len(self))
        parts = [row.split(dims, dim=1) for row in matrix.split(dims)]
        for k, m in self.crosses.held:
            cross = self.cross(k, m)
            parts[k][m].copy_(cross)
            parts[m][k].copy_(cross.T)
        return matrix

    def __matmul__(self, block: Tensor) -> Tensor:
        """The matrix of all times a block `[Σ d_k, b]`."""
        halves = [self._out_of(k, part) for k, part in enumerate(block.split(self.dims))]
        sums = self.crosses.sums(halves)
        return torch.cat([self._into(k, total) for k, total in enumerate(sums)])

    def seen_by(self, m: int, k: int, maps: Tensor) -> Tensor:
        """The directions `[d_m, b]` that covary most with maps of the first features of modality k,
        `[at most d_k, b]`."""
        return self._into(m, self.crosses.times(m, k, maps.to(self.factors[m].dtype)))

    def directions(self, k: int, maps: Tensor) -> Tensor:
        """Maps of the first features of modality k, `[at most d_k, b]`, as whitened directions
        `[d_k, b]`."""
        rows = self.factors[k][: len(maps)]
        return rows.T @ maps.to(rows.dtype)

    def maps(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Whitened directions `[d_k, b]` as maps of features, float64."""
        return [self._out_of(k, own).double() for k, own in enumerate(vectors)]

    def _out_of(self, k: int, block: Tensor) -> Tensor:
        return solve_triangular(self.factors[k].T, block, upper=True)

    def _into(self, k: int, block: Tensor) -> Tensor:
        return solve_triangular(self.factors[k], block, upper=False)


def factor(covariance: Tensor, ridge: float, penalty: Tensor | None, wide: bool) -> Tensor:
    """L with L Lᵀ = C + ridge · P, P the identity if there is no penalty.

    A wide one is float32. So is its factorisation, several times faster, if what it whitens has
    unit variance in float64; a small ridge on many items that are nearly copies would spoil that.
    """
    if penalty is None:
        covariance.diagonal().add_(ridge)
    else:
        covariance.add_(penalty, alpha=ridge)
    if not wide:
        return torch.linalg.cholesky(covariance)
    if len(covariance) <= _SHORT:
        return torch.linalg.cholesky(covariance).float()
    lower, failed = torch.linalg.cholesky_ex(covariance.float())
    if not failed and _whitens(lower, covariance):
        return lower
    return torch.linalg.cholesky(covariance).float()


def _whitens(lower: Tensor, covariance: Tensor) -> bool:
    """Whether directions L⁻ᵀ z have variances zᵀ z and no covariances, for a few random z."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(lower), _PROBES, generator=generator).to(lower)
    drawn = torch.linalg.qr(drawn).Q
    maps = solve_triangular(lower.T, drawn, upper=True).to(covariance.dtype)
    gram = maps.T @ (covariance @ maps)
    gram.diagonal().sub_(1)
    return bool(gram.abs().max() < _TOLERANCE)
