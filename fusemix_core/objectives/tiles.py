"""Reductions over all similarities of two sets of rows, without holding them all.

The similarities s = a bᵀ of rows `a [n, d]` and `b [m, d]` are made in tiles of rows of `a`. Where
one number for each of them fits in `kept_bytes`, these are kept for the backward, which then takes
two matrix products more, three in all; else the tiles are made again, four in all, and nothing is
held but two tiles beside the rows and their gradients. Exact either way, on any device, in float32
and float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fusemix_core.devices import widest_float
from fusemix_core.numerics import once_differentiable

KEPT_BYTES, KEPT_SHARE = 1 << 30, 0.25
"""What may be kept for the backward: bytes, or on a GPU a share of its free memory."""

TILE_BYTES = 1 << 26
"""A tile: enough rows for the products to run at full speed."""

_PIECE = 1 << 19
"""Similarities that are worked on at once between two products: they stay in the cache."""

_EXPONENT = {torch.float32: 75.0, torch.float64: 650.0}
"""exp of this, summed over a hundred thousand rows, is still finite."""

_LEAST_SUM = {torch.float32: 1e-30, torch.float64: 1e-280}
"""A sum of exponentials below this may have lost terms that count."""

Excluded = Callable[[slice], Tensor | None]
"""Which similarities of a tile of rows are left out: bool `[t, m]`, or None for none of them."""

Weights = Callable[[slice, Tensor, Tensor], Tensor]
"""The weights of a tile of rows, from two `[t, m]` buffers to write them in."""


def none_excluded(rows: slice) -> None:
    """Every similarity counts."""


def kept_bytes_on(device: torch.device, losses: int = 1) -> int:
    """What each of so many losses of a step may keep for its backward.

    A GPU is asked once, when the first of them is computed.
    """
    return KEPT_BYTES if device.type != "cuda" else _free_bytes(device) // max(losses, 1)


@cache
def _free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0] * KEPT_SHARE)


def two_way_logsumexp(
    a: Tensor, b: Tensor, excluded: Excluded = none_excluded, kept_bytes: int = KEPT_BYTES
) -> tuple[Tensor, Tensor]:
    """log Σ_j exp s_ij `[n]` and log Σ_i exp s_ij `[m]`, with gradients to a `[n, d]`, b `[m, d]`.

    A row or column of which everything is excluded gives -inf.
    """
    return _TwoWayLogSumExp.apply(a, b, excluded, kept_bytes)


def softplus_sum(
    a: Tensor,
    b: Tensor,
    bias: Tensor,
    excluded: Excluded = none_excluded,
    kept_bytes: int = KEPT_BYTES,
) -> Tensor:
    """Σ_ij log(1 + exp(s_ij + bias)), with gradients to a, b and the scalar `bias`."""
    return _SoftplusSum.apply(a, b, bias, excluded, kept_bytes)


class _Tiles:
    """The similarities of a and b, a tile of rows at a time; kept ones are made but once."""

    def __init__(self, a: Tensor, b: Tensor, excluded: Excluded, kept_bytes: int) -> None:
        self.a, self.b, self.excluded = a, b, excluded
        width = len(b) * a.element_size()
        self.step = max(TILE_BYTES // max(width, 1), 64)
        self.kept = a.new_empty(len(a), len(b)) if len(a) * width <= kept_bytes else None

    def slices(self) -> Iterator[slice]:
        for at in range(0, len(self.a), self.step):
            yield slice(at, min(at + self.step, len(self.a)))

    def made(self) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """(rows, their similarities `[t, m]`, what of them is excluded); to be written into."""
        room = self._scratch() if self.kept is None else self.kept
        for rows in self.slices():
            out = room[: rows.stop - rows.start] if self.kept is None else room[rows]
            yield rows, torch.mm(self.a[rows], self.b.T, out=out), self.excluded(rows)

    def gradients(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """(W b, Wᵀ a) of the weights W, made tile by tile."""
        grad_a, grad_b = torch.empty_like(self.a), torch.zeros_like(self.b)
        scratch, spare = self._scratch(), self._scratch()
        for rows in self.slices():
            size = rows.stop - rows.start
            tile = weights(rows, scratch[:size], spare[:size])
            torch.mm(tile, self.b, out=grad_a[rows])
            grad_b.addmm_(tile.T, self.a[rows])
        return grad_a, grad_b

    def _scratch(self) -> Tensor:
        return self.a.new_empty(min(self.step, len(self.a)), len(self.b))


class _TwoWayLogSumExp(torch.autograd.Function):
    """One exponential a similarity serves both directions, as long as neither sum underflows; where
    one does (temperatures of a few thousandths), each direction takes its own."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, excluded: Excluded, kept_bytes: int
    ) -> tuple[Tensor, Tensor]:
        a, b = a.detach(), b.detach()
        tiles = _Tiles(a, b, excluded, kept_bytes)
        bound = a.norm(dim=1).max() * b.norm(dim=1).max() if len(a) and len(b) else a.new_zeros(())
        sums, shift = None, 0.0
        if a.device.type == "cpu":  # a GPU is not asked: all would wait
            shift = max(bound.item() - _EXPONENT[a.dtype], 0.0)
            row_sums, column_sums = _sums(tiles, shift)
            least = _LEAST_SUM[a.dtype]
            if (row_sums >= least).all() and (column_sums >= least).all():
                sums = row_sums, column_sums
        ctx.shared = sums is not None
        if sums is not None:
            rows, columns = sums[0].log() + shift, sums[1].log() + shift
        else:
            rows, columns = _logsumexps(tiles)
        ctx.tiles, ctx.shift = tiles, shift
        ctx.save_for_backward(rows, columns)
        return rows, columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, grad_columns: Tensor) -> tuple:
        tiles, shift = ctx.tiles, ctx.shift
        rows, columns = ctx.saved_tensors
        if ctx.shared:
            # softmax over a row is exp(s - shift) / exp(row - shift), over a column likewise.
            by_row = grad_rows * (shift - rows).exp()
            by_column = grad_columns * (shift - columns).exp()

            def weights(part: slice, scratch: Tensor, spare: Tensor) -> Tensor:
                if tiles.kept is None:
                    tile, out = torch.mm(tiles.a[part], tiles.b.T, out=spare), tiles.excluded(part)
                else:
                    tile, out = tiles.kept[part], None
                own = by_row[part, None]
                for piece in _pieces(scratch):
                    powers = tile[piece]
                    if tiles.kept is None:
                        powers = _exponentials(tile, piece, shift, out)
                    torch.add(own[piece], by_column, out=scratch[piece]).mul_(powers)
                return scratch
        else:
            finite_rows = rows.masked_fill(rows.isinf(), 0)
            finite_columns = columns.masked_fill(columns.isinf(), 0)

            def weights(part: slice, scratch: Tensor, spare: Tensor) -> Tensor:
                similar = _similar(tiles, part, scratch)
                own = torch.sub(similar, finite_rows[part, None], out=spare).exp_()
                other = torch.sub(similar, finite_columns, out=scratch).exp_()
                return other.mul_(grad_columns).addcmul_(own, grad_rows[part, None])

        return *tiles.gradients(weights), None, None


def _sums(tiles: _Tiles, shift: float) -> tuple[Tensor, Tensor]:
    """Sums of exp(s - shift) over rows `[n]` and columns `[m]`; what is kept are its values."""
    rows = tiles.a.new_empty(len(tiles.a))
    columns = tiles.a.new_zeros(len(tiles.b))
    for part, tile, out in tiles.made():
        for piece in _pieces(tile):
            powers = _exponentials(tile, piece, shift, out)
            torch.sum(powers, dim=1, out=rows[part][piece])
            columns += powers.sum(dim=0)
    return rows, columns


def _pieces(tile: Tensor) -> Iterator[slice]:
    """The rows of a tile in pieces: one on an accelerator, where starting work is what costs."""
    step = max(_PIECE // tile.shape[1], 1) if tile.device.type == "cpu" else len(tile)
    for at in range(0, len(tile), step):
        yield slice(at, at + step)


def _exponentials(tile: Tensor, piece: slice, shift: float, excluded: Tensor | None) -> Tensor:
    """exp(s - shift) in place of a piece of a tile, 0 where excluded."""
    powers = tile[piece]
    if shift:
        powers.sub_(shift)
    powers.exp_()
    return powers if excluded is None else powers.masked_fill_(excluded[piece], 0)


def _logsumexps(tiles: _Tiles) -> tuple[Tensor, Tensor]:
    """Over rows and columns, each with its own maximum; what is kept are the similarities."""
    rows = tiles.a.new_empty(len(tiles.a))
    most = tiles.a.new_full((len(tiles.b),), -torch.inf)
    sums = torch.zeros_like(most)
    for part, tile, out in tiles.made():
        if out is not None:
            tile.masked_fill_(out, -torch.inf)
        rows[part] = tile.logsumexp(dim=1)
        higher = torch.maximum(most, tile.amax(dim=0))
        level = higher.masked_fill(higher.isinf(), 0)
        sums = sums * (most - level).exp() + (tile - level).exp_().sum(dim=0)
        most = higher
    return rows, sums.log() + most.masked_fill(most.isinf(), 0)


def _similar(tiles: _Tiles, part: slice, scratch: Tensor) -> Tensor:
    """The similarities of a tile, kept or made again, -inf where excluded."""
    if tiles.kept is not None:
        return tiles.kept[part]
    torch.mm(tiles.a[part], tiles.b.T, out=scratch)
    out = tiles.excluded(part)
    return scratch if out is None else scratch.masked_fill_(out, -torch.inf)


class _SoftplusSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, bias: Tensor, excluded: Excluded, kept_bytes: int
    ) -> Tensor:
        a, b, bias = a.detach(), b.detach(), bias.detach()
        tiles = _Tiles(a, b, excluded, kept_bytes)
        widest = widest_float(a.device)
        total = a.new_zeros((), dtype=widest)
        for _, tile, out in tiles.made():
            tile.add_(bias)
            if out is not None:
                tile.masked_fill_(out, -torch.inf)
            total += softplus(tile).sum(dtype=widest)
            tile.sigmoid_()
        ctx.tiles = tiles
        ctx.save_for_backward(bias)
        return total.to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        tiles = ctx.tiles
        (bias,) = ctx.saved_tensors
        widest = widest_float(bias.device)
        total = bias.new_zeros((), dtype=widest)

        def weights(part: slice, scratch: Tensor, spare: Tensor) -> Tensor:
            if tiles.kept is not None:
                scratch.copy_(tiles.kept[part])
            else:
                torch.mm(tiles.a[part], tiles.b.T, out=scratch).add_(bias)
                out = tiles.excluded(part)
                if out is not None:
                    scratch.masked_fill_(out, -torch.inf)
                scratch.sigmoid_()
            nonlocal total
            total = total + scratch.sum(dtype=widest)
            return scratch.mul_(grad)

        grad_a, grad_b = tiles.gradients(weights)
        return grad_a, grad_b, (total * grad).to(bias.dtype), None, None
