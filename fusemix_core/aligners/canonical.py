"""Regularised canonical correlation of K modalities, from their moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.aligners.moments import Moments

_DENSE = 1_500
"""Up to this order, of the smaller modality of two, eigenproblems are solved densely and in
float64; above it in a Krylov space or a subspace, in float32."""


@dataclass(frozen=True)
class Canonical:
    """maps[k]: float64 `[d_k, dim]`; correlations: `[dim]`, means over the pairs of modalities, in
    [0, 1], decreasing."""

    maps: list[Tensor]
    correlations: Tensor


def solve(moments: Moments, ridges: Sequence[float], dim: int, seed: int = 0) -> Canonical:
    """Regularised multi-set CCA of the moments; `ridges` are absolute, one a modality.

    Factors are taken in float64. What follows them is float32 where modalities are wide: ridges
    near the mean eigenvalue or above it keep the whitening's condition far below what that can
    resolve.
    """
    factors = []
    for k in range(len(moments.dims)):
        covariance = moments.covariance(k, k)
        covariance = (covariance + covariance.T) / 2
        covariance.diagonal().add_(ridges[k])
        factors.append(torch.linalg.cholesky(covariance))
    if sorted(moments.dims)[-2] > _DENSE:
        factors = [factor.float() for factor in factors]
    top = _two if len(factors) == 2 else _many
    values, vectors = top(moments, factors, dim, seed)
    maps = [
        torch.linalg.solve_triangular(factor.T, own, upper=True).double()
        for factor, own in zip(factors, vectors, strict=True)
    ]
    return Canonical(maps, values.double().clamp(0, 1))


def _whitened_cross(moments: Moments, factors: Sequence[Tensor], k: int, m: int) -> Tensor:
    """L_m⁻¹ C_mk L_k⁻ᵀ, `[d_m, d_k]`."""
    cross = moments.covariance(k, m).to(factors[k].dtype)
    cross = torch.linalg.solve_triangular(factors[k], cross, upper=False)
    return torch.linalg.solve_triangular(factors[m], cross.T, upper=False)


def _two(
    moments: Moments, factors: Sequence[Tensor], dim: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Correlations and whitened directions of two modalities."""
    left, values, right = top_singular(_whitened_cross(moments, factors, 1, 0), dim, seed)
    return values, [left, right]


def _many(
    moments: Moments, factors: Sequence[Tensor], dim: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """The same for K modalities: the top of the block matrix of all whitened cross-covariances."""
    dims = moments.dims
    starts = [sum(dims[:k]) for k in range(len(dims) + 1)]
    blocks = torch.zeros(starts[-1], starts[-1], dtype=factors[0].dtype, device=factors[0].device)
    for k in range(len(dims)):
        for m in range(k + 1, len(dims)):
            if moments.met(k, m):
                cross = _whitened_cross(moments, factors, k, m)
                blocks[starts[m] : starts[m + 1], starts[k] : starts[k + 1]] = cross
                blocks[starts[k] : starts[k + 1], starts[m] : starts[m + 1]] = cross.T
    values, vectors = top_eigenpairs(blocks, dim, seed)
    parts = [vectors[starts[k] : starts[k + 1]] * len(dims) ** 0.5 for k in range(len(dims))]
    return values / (len(dims) - 1), parts


def top_singular(matrix: Tensor, dim: int, seed: int, rounds: int = 3) -> tuple[Tensor, ...]:
    """(left `[a, dim]`, values `[dim]` decreasing, right `[b, dim]`) of `[a, b]`.

    From the Gram matrix of the shorter side where that is small, else by subspace iteration from a
    random block (Halko, Martinsson and Tropp, 2011).
    """
    if matrix.shape[0] < matrix.shape[1]:
        right, values, left = top_singular(matrix.T, dim, seed, rounds)
        return left, values, right
    width = dim + dim // 4 + 8
    if matrix.shape[1] <= max(_DENSE, width):
        basis = None
        image = matrix
    else:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype)
        basis = orthonormal(basis.to(matrix.device))
        for _ in range(rounds):
            basis = orthonormal(matrix.T @ orthonormal(matrix @ basis))
        image = matrix @ basis
    squares, vectors = torch.linalg.eigh((image.T @ image).double())
    values = squares.flip(0)[:dim].clamp(min=1e-20).sqrt()
    vectors = vectors.flip(1)[:, :dim].to(matrix.dtype)
    left = (image @ vectors) / values.to(matrix.dtype)
    return left, values, vectors if basis is None else basis @ vectors


def orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis of the columns `[a, b]`, a ≥ b, by Cholesky factors of the Gram matrix,
    twice: some times faster than Householder's, and as good where no column is a copy."""
    for _ in range(2):
        gram = (columns.T @ columns).double()
        gram.diagonal().add_(1e-10 * gram.diagonal().mean())
        factor = torch.linalg.cholesky(gram).to(columns.dtype)
        columns = torch.linalg.solve_triangular(factor, columns.T, upper=False).T.contiguous()
    return columns


def top_eigenpairs(matrix: Tensor, dim: int, seed: int, depth: int = 4) -> tuple[Tensor, Tensor]:
    """The `dim` largest eigenvalues of a symmetric matrix, decreasing, and their eigenvectors.

    Large ones by Rayleigh-Ritz in a randomised block Krylov space (Musco and Musco, 2015).
    """
    size = len(matrix)
    width = dim + dim // 8 + 8
    if size <= _DENSE or (depth + 1) * width >= size:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(size, width, generator=generator, dtype=matrix.dtype).to(matrix.device)
    blocks = []
    for _ in range(depth):
        block = torch.linalg.qr(matrix @ block).Q
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)).Q
    values, vectors = torch.linalg.eigh(basis.T @ (matrix @ basis))
    return values.flip(0)[:dim], basis @ vectors.flip(1)[:, :dim]
