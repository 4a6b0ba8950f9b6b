"""Contrastive losses in half precision: float16 products, everything else in float32.

The losses of `tiles` with their positives, in one function each: the positive is taken off the
softmax in float32 before the weights are rounded for the products of the backward. Taken off after,
nothing but rounding would be left once the loss is small.

Similarities s = a bᵀ are made in tiles of rows of a. Factors are rounded to float16, and what they
add up to is float32. For a low temperature each number is the sum of two in float16: gradients
are then within 1e-3 of float64 ones at temperatures from 0.005 to 0.5 and losses down to 1e-6. The
host waits for no value, but for a temperature every `READ_EVERY` steps and for positives that are
given one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import softplus

from fusemix_core.gathering import everyones
from fusemix_core.numerics import once_differentiable
from fusemix_core.objectives.half_choice import passes_on
from fusemix_core.objectives.half_passes import PLAIN, Entries, finite
from fusemix_core.objectives.tiles import Excluded, none_excluded

COARSE = 0.035
"""The temperature from which one float16 number for each of 512 will do. Rounding averages out less
in narrower rows."""

READ_EVERY = 100
"""Steps from one look at a temperature on an accelerator to the next."""

TILE_BYTES = 1 << 28
"""A tile: on an accelerator starting work is what costs."""

_PEAK = 2.0**13
"""What the largest weight of a tile is scaled to before they are rounded: small ones then keep
their digits."""

_MIXED = "dtype_out" in torch.ops.aten.mm.overloads() and torch.version.hip is None
"""Whether torch gives float32 products of float16 factors: 2.8 and later do, on NVIDIA's GPUs."""


def contrast(
    a: Tensor,
    b: Tensor,
    start: int = 0,
    excluded: Excluded = none_excluded,
    more: Entries | None = None,
    kept_bytes: int = 0,
    fine: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both cross-entropies of each row with its partner, with gradients to a and b; collective.

    Args:
        a: float32 `[t, d]`, this process's rows over the temperature.
        b: float32 `[m, d]`, the rows of all processes.
        start: the row of b that is the partner of the first of a; the others follow.
        excluded: which similarities don't count; never those of partners.
        more: further terms.
        kept_bytes: what similarities may take that are kept for the backward, in float32.
        fine: take each number as the sum of two in float16 for the similarities; see `Sharpness`.

    Returns:
        log Σ_j exp s_ij - s_i and log Σ_k exp s_kj - s_i, each `[t]`, with s_i the similarity of
        row i with its partner j, and k over the rows of all processes; and Σ w s of `more`.
    """
    return _Contrast.apply(a, b, start, excluded, more, kept_bytes, fine)


def others_logsumexp(
    a: Tensor,
    b: Tensor,
    first: int,
    excluded: Excluded = none_excluded,
    kept_bytes: int = 0,
    fine: bool = True,
) -> tuple[Tensor, Tensor]:
    """log Σ_j exp s_ij `[t]` and log Σ_i exp s_ij `[m]` over all but partners, with gradients to a
    `[t, d]` and b `[m, d]`; -inf if nothing is left.

    first: the row of b that is the partner of the first of a, m or more if b has none of them.
    excluded, kept_bytes, fine: as of `contrast`.
    """
    return _Others.apply(a, b, first, excluded, kept_bytes, fine)


def signed_softplus(
    a: Tensor,
    b: Tensor,
    bias: Tensor,
    positives: Entries | int = 0,
    excluded: Excluded = none_excluded,
    kept_bytes: int = 0,
    fine: bool = True,
) -> Tensor:
    """Σ_ij log(1 + exp(-l z_ij)), z = s + bias, with l = 1 for positives and -1 for all others;
    with gradients to a, b and the scalar bias.

    positives: which, or the row of b that is the partner of the first of a; the others follow.
    kept_bytes, fine: as of `contrast`.
    """
    return _SignedSoftplus.apply(a, b, bias, positives, excluded, kept_bytes, fine)


class Sharpness:
    """Whether similarities must be `fine`, by a temperature as the host last read it.

    Args:
        temperature: at the start.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature, self.fresh = temperature, True

    def fine(self, temperature: Tensor, width: int, step: int) -> bool:
        """For rows of a width, before so many steps were done. Of a tensor on an accelerator the
        value is read every `READ_EVERY` steps and where a fit is resumed."""
        resumed, self.fresh = self.fresh and step > 0, False
        due = step % READ_EVERY == READ_EVERY - 1
        if temperature.device.type == "cpu" or resumed or due:
            self.temperature = temperature.item()
        return self.temperature < COARSE * (512 / width) ** 0.5


class _Tiles:
    """a and b in float16, and the tiles of their similarities."""

    def __init__(
        self, a: Tensor, b: Tensor, excluded: Excluded, kept_bytes: int, fine: bool
    ) -> None:
        self.a, self.b, self.excluded = a.half(), b.half(), excluded
        self.left, self.right = _pieces(a, self.a, b, self.b) if fine else (self.a, self.b)
        width = 4 * max(len(b), 1)
        step = max(TILE_BYTES // width, 64)
        self.rows = [slice(at, min(at + step, len(a))) for at in range(0, len(a), step)]
        self.like = a.new_empty(0)
        self.kept = self._empty(len(a)) if len(a) * width <= kept_bytes else None

    def made(self) -> Iterator[tuple[slice, Tensor]]:
        """(rows, their similarities `[t, m]`, -inf where excluded), to be written into; those that
        are kept stay as they are left."""
        room = self._scratch() if self.kept is None else self.kept
        for rows in self.rows:
            out = room[: rows.stop - rows.start] if self.kept is None else room[rows]
            yield rows, self._tile(rows, out)

    def again(self) -> Iterator[tuple[slice, Tensor]]:
        """The same for the backward: as they were left if they are kept, and not to be written
        into."""
        if self.kept is None:
            yield from self.made()
        else:
            for rows in self.rows:
                yield rows, self.kept[rows]

    def gradients(
        self, weights: Iterator[tuple[slice, Tensor]], scale: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """(W b, Wᵀ a) of weights that come a tile of rows at a time, in float16 and times `scale`,
        which leaves them their digits."""
        grad_a = self.like.new_zeros(self.a.shape)
        grad_b = self.like.new_zeros(self.b.shape)
        for rows, half in weights:
            grad_a[rows] = _product(half, self.b)
            grad_b += _product(half.T, self.a[rows])
        return grad_a.div_(scale), grad_b.div_(scale)

    def _tile(self, rows: slice, out: Tensor) -> Tensor:
        _product(self.left[rows], self.right.T, out)
        excluded = self.excluded(rows)
        return out if excluded is None else out.masked_fill_(excluded, -torch.inf)

    def _empty(self, rows: int) -> Tensor:
        return self.like.new_empty(rows, len(self.b))

    def _scratch(self) -> Tensor:
        return self._empty(self.rows[0].stop if self.rows else 0)


def _pieces(a: Tensor, a16: Tensor, b: Tensor, b16: Tensor) -> tuple[Tensor, Tensor]:
    """float16 rows whose products are those of a and b: a = a' + a", b = b' + b", and so a bᵀ is
    a' b'ᵀ + a" b'ᵀ + a' b"ᵀ, one product of longer rows."""
    rest_a, rest_b = (a - a16.float()).half(), (b - b16.float()).half()
    return torch.cat([a16, rest_a, a16], dim=1), torch.cat([b16, b16, rest_b], dim=1)


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a b in float32, of float16 factors."""
    if out is None:
        out = torch.empty(len(a), b.shape[1], dtype=torch.float32, device=a.device)
    if a.device.type == "cuda" and _MIXED:
        return torch.mm(a, b, out_dtype=torch.float32, out=out)
    return torch.mm(a.float(), b.float(), out=out)  # where TF32 is on, it rounds nothing more


class _Contrast(torch.autograd.Function):
    """With s_i of the partner, m a maximum and S the sum of exp(s - m) over all others, a
    cross-entropy is (m - s_i) + log1p(S + expm1(s_i - m)): exact however small it is."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        start: int,
        excluded: Excluded,
        more: Entries | None,
        kept_bytes: int,
        fine: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        tiles = _Tiles(a.detach(), b.detach(), excluded, kept_bytes, fine)
        passes = passes_on(a.device) if more is None else PLAIN
        mine = slice(start, start + len(a))
        own, row = a.new_empty(len(a)), a.new_empty(len(a))
        most, sums = a.new_full((len(b),), -torch.inf), a.new_zeros(len(b))
        total = a.new_zeros(())
        parts = None if more is None else more.by_tiles(tiles.rows)
        for number, (rows, tile) in enumerate(tiles.made()):
            found = passes.statistics(tile, start + rows.start)
            own[rows] = found.own
            row[rows] = _cross_entropy(found.row_most, found.row_sums, found.own)
            most, sums = _merged((most, sums), (found.column_most, found.column_sums))
            if parts is not None:
                part = parts[number]
                total += (tile[part.i, part.j] * part.weights).sum()
        top = everyones(most, dist.ReduceOp.MAX)
        sums = everyones(sums * (most - top).exp())
        column = _cross_entropy(top[mine], sums[mine], own)
        # What a column adds up to is known where its partner is.
        known = a.new_zeros(2, len(b))
        known[0, mine], known[1, mine] = own + column, column
        ctx.tiles, ctx.start, ctx.parts, ctx.passes = tiles, start, parts, passes
        ctx.save_for_backward(row, column, own + row, everyones(known))
        return row, column, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, grad_columns: Tensor, grad_total: Tensor) -> tuple:
        tiles, start, passes = ctx.tiles, ctx.start, ctx.passes
        row, column, row_sums, (column_sums, columns) = ctx.saved_tensors
        by_column = torch.zeros_like(column_sums)
        by_column[start : start + len(column)] = grad_columns
        by_column = everyones(by_column)
        # exp(s - log Σ exp) - 1 of a partner, exactly; all others of a row or column add up to it.
        of_rows, of_columns = grad_rows * torch.expm1(-row), by_column * torch.expm1(-columns)
        partners = of_rows + of_columns[start : start + len(row)]
        bound = _largest(of_rows) + _largest(of_columns)
        if ctx.parts is not None:
            bound = bound + 2 * grad_total.abs()
        scale = _PEAK / bound.clamp(min=1e-30)

        def weights() -> Iterator[tuple[slice, Tensor]]:
            for number, (rows, tile) in enumerate(tiles.again()):
                given = row_sums[rows], column_sums, grad_rows[rows], by_column, partners[rows]
                more = None
                if ctx.parts is not None:
                    part = ctx.parts[number]
                    more = Entries(part.i, part.j, part.weights * grad_total)
                yield rows, passes.weights(tile, start + rows.start, *given, scale, more)

        return *tiles.gradients(weights(), scale), None, None, None, None, None


class _Others(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        first: int,
        excluded: Excluded,
        kept_bytes: int,
        fine: bool,
    ) -> tuple[Tensor, Tensor]:
        tiles = _Tiles(a.detach(), b.detach(), excluded, kept_bytes, fine)
        passes, row = passes_on(a.device), a.new_empty(len(a))
        most, sums = a.new_full((len(b),), -torch.inf), a.new_zeros(len(b))
        for rows, tile in tiles.made():
            found = passes.statistics(tile, first + rows.start)
            row[rows] = finite(found.row_most) + found.row_sums.log()
            most, sums = _merged((most, sums), (found.column_most, found.column_sums))
        column = finite(most) + sums.log()
        ctx.tiles, ctx.first, ctx.passes = tiles, first, passes
        ctx.save_for_backward(row, column)
        return row, column

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, grad_columns: Tensor) -> tuple:
        # Where nothing is left, or nothing beside the partner, all weights are exp(-inf).
        row, column = (x.masked_fill(x.isinf(), torch.inf) for x in ctx.saved_tensors)
        scale = _PEAK / (_largest(grad_rows) + _largest(grad_columns)).clamp(min=1e-30)
        none = torch.zeros_like(grad_rows)

        def weights() -> Iterator[tuple[slice, Tensor]]:
            for rows, tile in ctx.tiles.again():
                given = row[rows], column, grad_rows[rows], grad_columns, none[rows]
                yield rows, ctx.passes.weights(tile, ctx.first + rows.start, *given, scale, None)

        return *ctx.tiles.gradients(weights(), scale), None, None, None, None


def _largest(x: Tensor) -> Tensor:
    return x.abs().amax() if len(x) else x.new_zeros(())


def _merged(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(most, Σ exp(s - most)) of two sets together."""
    most = torch.maximum(one[0], two[0])
    level = finite(most)
    return most, one[1] * (one[0] - level).exp() + two[1] * (two[0] - level).exp()


def _cross_entropy(most: Tensor, others: Tensor, own: Tensor) -> Tensor:
    return (most - own) + torch.log1p(others + torch.expm1(own - most))


class _SignedSoftplus(torch.autograd.Function):
    """What is kept are the derivatives, exact for positives too: -σ(-z), not σ(z) - 1."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        bias: Tensor,
        positives: Entries | int,
        excluded: Excluded,
        kept_bytes: int,
        fine: bool,
    ) -> Tensor:
        tiles = _Tiles(a.detach(), b.detach(), excluded, kept_bytes, fine)
        ctx.negate = _negation(tiles, positives)
        ctx.tiles = tiles
        total = a.new_zeros(())
        for number, (rows, tile) in enumerate(tiles.made()):
            ctx.negate(number, rows, tile.add_(bias.detach()))
            total += softplus(tile).sum()
            ctx.negate(number, rows, tile.sigmoid_())
        ctx.save_for_backward(bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        (bias,) = ctx.saved_tensors
        total = torch.zeros_like(bias)

        def weights() -> Iterator[tuple[slice, Tensor]]:
            for number, (rows, tile) in enumerate(ctx.tiles.again()):
                if ctx.tiles.kept is None:
                    ctx.negate(number, rows, tile.add_(bias))
                    ctx.negate(number, rows, tile.sigmoid_())
                total.add_(tile.sum())
                yield rows, (tile * _PEAK).half()

        grad_a, grad_b = ctx.tiles.gradients(weights(), _PEAK)
        return grad_a.mul_(grad), grad_b.mul_(grad), total * grad, None, None, None, None


def _negation(tiles: _Tiles, positives: Entries | int) -> Any:
    """A function that changes the sign of a tile's positives in place."""
    if isinstance(positives, int):

        def partners(number: int, rows: slice, tile: Tensor) -> None:
            tile.diagonal(positives + rows.start).neg_()

        return partners
    parts = positives.by_tiles(tiles.rows)

    def some(number: int, rows: slice, tile: Tensor) -> None:
        part = parts[number]
        tile[part.i, part.j] = -tile[part.i, part.j]

    return some
