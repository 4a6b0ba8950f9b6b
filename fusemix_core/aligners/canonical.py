"""Regularised canonical correlation of K modalities, from their moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.aligners.moments import Moments
from fusemix_core.aligners.whitened import Whitened

_DENSE = 1_500
"""Up to this order, of the smaller modality of two, eigenproblems are solved densely and in
float64; above it in a Krylov space or a subspace, in float32."""


@dataclass(frozen=True)
class Canonical:
    """maps[k]: float64 `[d_k, dim]`; correlations: `[dim]`, means over the pairs of modalities, in
    [0, 1], decreasing; energies[k]: `[dim]`, the variance of each column of maps[k]."""

    maps: list[Tensor]
    correlations: Tensor
    energies: list[Tensor]


def solve(
    moments: Moments,
    ridges: Sequence[float],
    dim: int,
    seed: int = 0,
    penalties: Sequence[Tensor | None] | None = None,
    near: Sequence[Tensor] | None = None,
) -> Canonical:
    """Regularised multi-set CCA of the moments.

    Factors are of float64 unless modalities are wide: see `Whitened`.

    Args:
        moments: of K modalities.
        ridges: absolute, one for each modality.
        dim: how many directions.
        seed: of random starts.
        penalties: P_k of each modality, `[d_k, d_k]`, of the ridge r_k αᵀ P_k α that a direction α
            pays; None is the identity.
        near: maps of a problem like this one, `[d_k, about dim]`, which the iterations of a wide
            problem start from.
    """
    wide = sorted(moments.dims)[-2] > _DENSE
    penalties = penalties or [None] * len(ridges)
    whitened = Whitened.of(moments, ridges, penalties, wide)
    start = None if near is None or not wide else whitened.directions(near)
    top = _two if len(ridges) == 2 else _many
    values, vectors = top(whitened, dim, seed, start)
    maps = whitened.maps(vectors)
    energies = [
        (own.double().square().sum(0) - ridge * _paid(map_, penalty)).clamp(min=0)
        for own, map_, ridge, penalty in zip(vectors, maps, ridges, penalties, strict=True)
    ]
    return Canonical(maps, values.double().clamp(0, 1), energies)


def _paid(map_: Tensor, penalty: Tensor | None) -> Tensor:
    """αᵀ P α of each column α."""
    if penalty is None:
        return map_.square().sum(0)
    return ((penalty @ map_.to(penalty.dtype)) * map_).sum(0)


def _two(
    whitened: Whitened, dim: int, seed: int, start: Sequence[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """Correlations and whitened directions of two modalities."""
    if not whitened.wide:
        left, values, right = top_singular(whitened.cross(0, 1), dim, seed)
        return values, [left, right]
    short = 0 if whitened.dims[0] < whitened.dims[1] else 1
    found = top_singular_of(
        lambda block: whitened.times(1 - short, short, block),
        lambda block: whitened.times(short, 1 - short, block),
        _block(whitened, short, dim, seed, start),
        dim,
        3 if start is None else 1,
    )
    long, values, own = found
    return values, [own, long] if short == 0 else [long, own]


def _block(
    whitened: Whitened, k: int, dim: int, seed: int, start: Sequence[Tensor] | None
) -> Tensor:
    """Directions of modality k to start from, more than `dim`: those given, and random ones."""
    width = min(dim + dim // (4 if start is None else 8) + 8, whitened.dims[k])
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(whitened.dims[k], width, generator=generator).to(whitened.factors[k])
    if start is None:
        return drawn
    given = start[k][:, :dim]
    given = given / given.norm(dim=0).clamp(min=1e-12)
    drawn = drawn[:, given.shape[1] :]
    return torch.cat([given, drawn / drawn.norm(dim=0)], dim=1)


def _many(
    whitened: Whitened, dim: int, seed: int, start: Sequence[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """The same for K modalities: the top of the block matrix of all whitened cross-covariances."""
    dims = whitened.dims
    if not whitened.wide:
        values, vectors = top_eigenpairs(whitened.blocks(), dim, seed)
    else:
        block = None
        if start is not None:
            drawn = [_block(whitened, k, dim, seed + k, start) for k in range(len(dims))]
            width = min(part.shape[1] for part in drawn)
            block = torch.cat([part[:, :width] for part in drawn])
        values, vectors = top_eigenpairs(whitened, dim, seed, 4 if start is None else 3, block)
    parts = [part * len(dims) ** 0.5 for part in vectors.split(list(dims))]
    return values / (len(dims) - 1), parts


def top_singular(matrix: Tensor, dim: int, seed: int, rounds: int = 3) -> tuple[Tensor, ...]:
    """(left `[a, dim]`, values `[dim]` decreasing, right `[b, dim]`) of `[a, b]`.

    From the Gram matrix of the shorter side where that is small, else by subspace iteration from a
    random block.
    """
    if matrix.shape[0] < matrix.shape[1]:
        right, values, left = top_singular(matrix.T, dim, seed, rounds)
        return left, values, right
    width = dim + dim // 4 + 8
    if matrix.shape[1] <= max(_DENSE, width):
        return _of_image(matrix, dim)
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype)
    times, back = lambda x: matrix @ x, lambda x: matrix.T @ x
    return top_singular_of(times, back, block.to(matrix.device), dim, rounds)


def top_singular_of(
    times: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    block: Tensor,
    dim: int,
    rounds: int,
) -> tuple[Tensor, ...]:
    """The same of a matrix that only multiplies, it and its transpose, by subspace iteration from a
    block of more than `dim` columns (Halko, Martinsson and Tropp, 2011)."""
    basis = orthonormal(block)
    for _ in range(rounds):
        basis = orthonormal(back(orthonormal(times(basis))))
    left, values, right = _of_image(times(basis), dim)
    return left, values, basis @ right


def _of_image(image: Tensor, dim: int) -> tuple[Tensor, ...]:
    """The top singular values and vectors of a matrix with few columns, from its Gram matrix."""
    squares, vectors = torch.linalg.eigh((image.T @ image).double())
    values = squares.flip(0)[:dim].clamp(min=1e-20).sqrt()
    vectors = vectors.flip(1)[:, :dim].to(image.dtype)
    return (image @ vectors) / values.to(image.dtype), values, vectors


def orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis of the columns `[a, b]`, a ≥ b, by Cholesky factors of the Gram matrix,
    twice: some times faster than Householder's, and as good where no column is a copy."""
    for _ in range(2):
        gram = (columns.T @ columns).double()
        gram.diagonal().add_(1e-10 * gram.diagonal().mean())
        factor = torch.linalg.cholesky(gram).to(columns.dtype)
        columns = torch.linalg.solve_triangular(factor, columns.T, upper=False).T.contiguous()
    return columns


def top_eigenpairs(
    matrix: Tensor | Whitened, dim: int, seed: int, depth: int = 4, block: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The `dim` largest eigenvalues of a symmetric matrix, decreasing, and their eigenvectors.

    Large ones by Rayleigh-Ritz in a block Krylov space (Musco and Musco, 2015), from a block that
    is given or drawn.
    """
    size = len(matrix)
    width = dim + dim // 8 + 8
    if size <= _DENSE or (depth + 1) * width >= size:
        dense = matrix.blocks() if isinstance(matrix, Whitened) else matrix
        values, vectors = torch.linalg.eigh(dense)
        return values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    if block is None:
        like = matrix.factors[0] if isinstance(matrix, Whitened) else matrix
        generator = torch.Generator().manual_seed(seed)
        block = torch.randn(size, width, generator=generator, dtype=like.dtype).to(like.device)
    blocks = []
    for _ in range(depth):
        block = torch.linalg.qr(matrix @ block).Q
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)).Q
    values, vectors = torch.linalg.eigh(basis.T @ (matrix @ basis))
    return values.flip(0)[:dim], basis @ vectors.flip(1)[:, :dim]
