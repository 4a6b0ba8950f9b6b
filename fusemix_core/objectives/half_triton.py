"""The passes of `half_passes` as one kernel each, by Triton: a tile is read once.

With TRITON_INTERPRET=1 they run on a CPU, which is how they are tested.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusemix_core.objectives.half_passes import PLAIN, Entries, Statistics, finite

BLOCK = 32, 256
"""Rows and columns of a tile that one program takes."""


class _Fused:
    def statistics(self, tile: Tensor, first: int) -> Statistics:
        (n, m), (rows, columns) = tile.shape, BLOCK
        across, down = triton.cdiv(m, columns), triton.cdiv(n, rows)
        own = tile.new_empty(n)
        by_row, by_column = tile.new_empty(2, across, n), tile.new_empty(2, down, m)
        _statistics[down, across](
            tile, own, *by_row, *by_column, n, m, tile.stride(0), first, *BLOCK
        )
        return Statistics(own, *_joined(*by_row), *_joined(*by_column))

    def weights(
        self,
        tile: Tensor,
        first: int,
        row_sums: Tensor,
        column_sums: Tensor,
        by_row: Tensor,
        by_column: Tensor,
        partners: Tensor,
        scale: Tensor,
        more: Entries | None,
    ) -> Tensor:
        given = row_sums, column_sums, by_row, by_column, partners, scale
        if more is not None:
            return PLAIN.weights(tile, first, *given, more)
        (n, m), (rows, columns) = tile.shape, BLOCK
        out = torch.empty(n, m, dtype=torch.float16, device=tile.device)
        given = [x.contiguous() for x in given]
        _weights[triton.cdiv(n, rows), triton.cdiv(m, columns)](
            tile, out, *given, n, m, tile.stride(0), first, *BLOCK
        )
        return out


FUSED = _Fused()


def _joined(most: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """(most, Σ exp(s - most)) of parts `[p, n]` together."""
    top = most.amax(0)
    return top, (sums * (most - finite(top)).exp()).sum(0)


@triton.jit
def _statistics(
    S, OWN, ROW_MOST, ROW_SUMS, COLUMN_MOST, COLUMN_SUMS, n, m, stride, first,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of one block: what its rows and columns have as `Statistics`."""
    down, across = tl.program_id(0), tl.program_id(1)
    i, j = down * ROWS + tl.arange(0, ROWS), across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i[:, None] < n) & (j[None, :] < m)
    place = i.to(tl.int64)[:, None] * stride + j[None, :]
    s = tl.load(S + place, mask=inside, other=float("-inf"))
    partner = (i[:, None] + first) == j[None, :]
    here = (i < n) & (i + first >= across * COLUMNS) & (i + first < (across + 1) * COLUMNS)
    tl.store(OWN + i, tl.sum(tl.where(partner & inside, s, 0.0), 1), mask=here)
    most = tl.max(s, 1)
    level = tl.where(most == float("-inf"), 0.0, most)
    sums = tl.sum(tl.where(partner, 0.0, tl.exp(s - level[:, None])), 1)
    tl.store(ROW_MOST + across * n + i, most, mask=i < n)
    tl.store(ROW_SUMS + across * n + i, sums, mask=i < n)
    most = tl.max(s, 0)
    level = tl.where(most == float("-inf"), 0.0, most)
    sums = tl.sum(tl.where(partner, 0.0, tl.exp(s - level[None, :])), 0)
    tl.store(COLUMN_MOST + down * m + j, most, mask=j < m)
    tl.store(COLUMN_SUMS + down * m + j, sums, mask=j < m)


@triton.jit
def _weights(
    S, OUT, ROW_SUMS, COLUMN_SUMS, BY_ROW, BY_COLUMN, PARTNERS, SCALE, n, m, stride, first,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The weights of one block, rounded at last."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i[:, None] < n) & (j[None, :] < m)
    row = i.to(tl.int64)[:, None]
    s = tl.load(S + row * stride + j[None, :], mask=inside, other=float("-inf"))
    row_sums = tl.load(ROW_SUMS + i, mask=i < n, other=0.0)
    column_sums = tl.load(COLUMN_SUMS + j, mask=j < m, other=0.0)
    by_row = tl.load(BY_ROW + i, mask=i < n, other=0.0)
    by_column = tl.load(BY_COLUMN + j, mask=j < m, other=0.0)
    partners = tl.load(PARTNERS + i, mask=i < n, other=0.0)
    w = by_row[:, None] * tl.exp(s - row_sums[:, None])
    w += by_column[None, :] * tl.exp(s - column_sums[None, :])
    w = tl.where((i[:, None] + first) == j[None, :], partners[:, None], w) * tl.load(SCALE)
    tl.store(OUT + row * m + j[None, :], w.to(tl.float16), mask=inside)
