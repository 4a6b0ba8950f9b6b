"""Regularised canonical correlation of K modalities, from their moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.aligners.moments import Moments
from fusemix_core.aligners.whitened import Whitened

_DENSE = 1_500
"""Up to this order, of the smaller modality of two, eigenproblems are solved densely and in
float64; above it in a Krylov space, in float32."""

_DEPTH, _MANY_DEPTH = 3, 5
"""Blocks of the Krylov space of singular vectors, and of eigenvectors of many modalities; one less
if it begins with maps that are known."""


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
    start: Sequence[Tensor] = (),
) -> Canonical:
    """Regularised multi-set CCA of the moments.

    Factors are of float64 unless modalities are wide: see `Whitened`.

    Args:
        moments: of K modalities.
        ridges: absolute, one for each modality.
        dim: how many directions.
        seed: of random starts.
        start: maps of the first features of each modality, that an iteration begins with.
        penalties: P_k of each modality, `[d_k, d_k]`, of the ridge r_k αᵀ P_k α that a direction α
            pays; None is the identity.
    """
    count = len(moments.dims)
    wide = (sorted(moments.dims)[-2] if count == 2 else sum(moments.dims)) > _DENSE
    penalties = penalties or [None] * len(ridges)
    whitened = Whitened.of(moments, ridges, penalties, wide)
    known = [own[:, :dim] for own in start]
    top = _two if count == 2 else _many
    values, vectors = top(whitened, dim, seed, known)
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
    whitened: Whitened, dim: int, seed: int, known: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Correlations and whitened directions of two modalities."""
    width = _width(dim)
    if not whitened.wide or min(whitened.dims) < _DEPTH * width:
        left, values, right = top_singular(whitened.cross(0, 1), dim, seed)
        return values, [left, right]
    block = _drawn(whitened.dims[1], width, whitened.factors[1], seed)
    if known:  # what the other modality makes of its maps is nearer than those of this one
        block[:, : known[0].shape[1]] = whitened.seen_by(1, 0, known[0])
    left, values, right = top_singular_of(
        lambda block: whitened.times(0, 1, block),
        lambda block: whitened.times(1, 0, block),
        block,
        dim,
        _DEPTH - bool(known),
    )
    return values, [left, right]


def _many(
    whitened: Whitened, dim: int, seed: int, known: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The same for K modalities: the top of the block matrix of all whitened cross-covariances."""
    matrix = whitened if whitened.wide else whitened.blocks()
    begin = [whitened.directions(k, own) for k, own in enumerate(known)]
    values, vectors = top_eigenpairs(matrix, dim, seed, torch.cat(begin) if begin else None)
    count = len(whitened.dims)
    parts = [part * count**0.5 for part in vectors.split(whitened.dims)]
    return values / (count - 1), parts


def _width(dim: int) -> int:
    """Columns of a random block that `dim` singular vectors are found from."""
    return dim + 32


def _drawn(rows: int, width: int, like: Tensor, seed: int) -> Tensor:
    """A random block `[rows, width]`, of unit columns, where and of what type `like` is."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(rows, width, generator=generator, dtype=like.dtype).to(like.device)
    return normalize(block, dim=0)


def top_singular(matrix: Tensor, dim: int, seed: int) -> tuple[Tensor, ...]:
    """(left `[a, dim]`, values `[dim]` decreasing, right `[b, dim]`) of `[a, b]`.

    From the Gram matrix of the shorter side if that is small, else in a Krylov space.
    """
    if matrix.shape[0] < matrix.shape[1]:
        right, values, left = top_singular(matrix.T, dim, seed)
        return left, values, right
    width = _width(dim)
    if matrix.shape[1] <= max(_DENSE, _DEPTH * width):
        return _of_image(matrix, dim)
    block = _drawn(matrix.shape[1], width, matrix, seed)
    return top_singular_of(lambda x: matrix @ x, lambda x: matrix.T @ x, block, dim)


def top_singular_of(
    times: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    block: Tensor,
    dim: int,
    depth: int = _DEPTH,
) -> tuple[Tensor, ...]:
    """The same of a matrix that only multiplies, it and its transpose, by Rayleigh-Ritz in the
    Krylov space of a block of more than `dim` columns (Musco and Musco, 2015)."""
    basis, image = _krylov(times, back, block, depth)
    left, values, right = _of_image(image, dim)
    return left, values, basis @ right


def _krylov(
    times: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    block: Tensor,
    depth: int,
) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of `depth` blocks, the first that of `block` and each next one of `back`
    of the image before, and the image of the basis under `times`."""
    basis = torch.linalg.qr(block).Q
    bases, images = [basis], [times(basis)]
    for _ in range(depth - 1):
        basis = back(images[-1])
        for _ in range(2):  # the second time takes off what rounding has left
            for known in bases:
                basis = basis - known @ (known.T @ basis)
            basis = torch.linalg.qr(basis).Q
        bases.append(basis)
        images.append(times(basis))
    return torch.cat(bases, dim=1), torch.cat(images, dim=1)


def _of_image(image: Tensor, dim: int) -> tuple[Tensor, ...]:
    """The top singular values and vectors of a matrix with few columns, from its Gram matrix."""
    squares, vectors = torch.linalg.eigh((image.T @ image).double())
    values = squares.flip(0)[:dim].clamp(min=1e-20).sqrt()
    vectors = vectors.flip(1)[:, :dim].to(image.dtype)
    return (image @ vectors) / values.to(image.dtype), values, vectors


def top_eigenpairs(
    matrix: Tensor | Whitened, dim: int, seed: int, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The `dim` largest eigenvalues of a symmetric matrix, decreasing, and their eigenvectors.

    Large ones by Rayleigh-Ritz in a Krylov space that begins with `known` directions, if there are
    any, and random ones (Musco and Musco, 2015).
    """
    size, width = len(matrix), _width(dim)
    depth = _MANY_DEPTH - (known is not None)
    if size <= _DENSE or depth * width >= size:
        dense = matrix.blocks() if isinstance(matrix, Whitened) else matrix
        values, vectors = torch.linalg.eigh(dense)
        return values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    like = matrix.factors[0] if isinstance(matrix, Whitened) else matrix
    block = _drawn(size, width, like, seed)
    if known is not None:
        block[:, : known.shape[1]] = known
    basis, image = _krylov(lambda x: matrix @ x, lambda x: x, block, depth)
    square = basis.T @ image
    values, vectors = torch.linalg.eigh((square + square.T) / 2)
    return values.flip(0)[:dim], basis @ vectors.flip(1)[:, :dim]
