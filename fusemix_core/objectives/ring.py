"""Losses against rows of other processes that are too many to gather: these go round in a ring.

Each process holds its own rows x of one modality, and in turn the rows y of each process of the
other modality. The next block is on its way while one computes with this one. For the backward pass
the blocks go round again, each followed by its gradient, which every process adds to. So a process
needs two blocks and two gradients of a block, where gathered rows would take one of each for
every process; about half as many bytes more are sent.

What is computed with a block is a function `local(x, block, columns)` with gradients; `columns` is
the slice of all rows that the block is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fusemix_core.gathering import processes, rank
from fusemix_core.numerics import once_differentiable

GATHER_BYTES = 2 << 30
"""What the gathered rows of a modality may take; above it they go round."""

Local = Callable[..., Any]


class Ring:
    """The processes in a ring, with their rows of one modality.

    sizes: how many rows each process has.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        ends = [0, *accumulate(sizes)]
        self.count, self.most = ends[-1], max(sizes)
        self.columns = [slice(a, b) for a, b in pairwise(ends)]

    def blocks(self, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(columns, rows `[m, d]`) of each process, the own ones first; collective."""
        block = self._padded(y)
        for turn in range(processes()):
            coming = _Sent(block) if turn + 1 < processes() else None
            columns = self.columns[(rank() - turn) % processes()]
            yield columns, block[: columns.stop - columns.start]
            if coming is not None:
                block = coming.wait()

    def gradient(self, y: Tensor, of: Callable[[slice, Tensor], Tensor]) -> Tensor:
        """The gradient of y `[t, d]`, to which every process adds what `of(columns, block)` gives;
        collective."""
        coming: _Sent | None = None
        for columns, block in self.blocks(y):
            own = of(columns, block)
            found = self._padded(own) if coming is None else coming.wait()
            if coming is not None:
                found[: len(own)] += own
            coming = _Sent(found)
        assert coming is not None  # there is one block or more
        return coming.wait()[: len(y)]

    def _padded(self, x: Tensor) -> Tensor:
        padded = x.new_zeros(self.most, *x.shape[1:])  # what is exchanged has equal shapes
        padded[: len(x)] = x
        return padded


class _Sent:
    """A block on its way to the next process, and the previous one's on its way here."""

    def __init__(self, block: Tensor) -> None:
        self.block, self.found = block, torch.empty_like(block)
        here, count = rank(), processes()
        to, origin = (here + 1) % count, (here - 1) % count
        self.works = []
        if count > 1 and block.numel():
            self.works = dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, block, to), dist.P2POp(dist.irecv, self.found, origin)]
            )

    def wait(self) -> Tensor:
        for work in self.works:
            work.wait()
        return self.found


def ring_logsumexp(x: Tensor, y: Tensor, ring: Ring, local: Local) -> tuple[Tensor, Tensor]:
    """log Σ exp over all columns of each own row `[t]`, and over own rows of each of all columns
    `[n]`, with gradients to x and y; collective.

    Args:
        x, y: own rows `[t, d]` of both modalities.
        local: gives the same two of a block; -inf for nothing.
    """
    return _RingLogSumExp.apply(x, y, ring, local)


def ring_sum(x: Tensor, y: Tensor, ring: Ring, local: Local, *parameters: Tensor) -> Tensor:
    """The sum of the scalars `local(x, block, columns, *parameters)` over all blocks, with
    gradients to x, y and the parameters; collective."""
    return _RingSum.apply(x, y, ring, local, *parameters)


class _RingLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, ring: Ring, local: Local) -> tuple[Tensor, Tensor]:
        x, y = x.detach(), y.detach()
        rows, every = x.new_full((len(x),), -torch.inf), x.new_full((ring.count,), -torch.inf)
        for columns, block in ring.blocks(y):
            if len(x) and len(block):
                own, every[columns] = local(x, block, columns)
                rows = torch.logaddexp(rows, own)
        ctx.ring, ctx.local = ring, local
        ctx.save_for_backward(x, y, rows)
        return rows, every

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, grad_columns: Tensor) -> tuple:
        x, y, rows = ctx.saved_tensors
        grad_x, level = torch.zeros_like(x), rows.masked_fill(rows.isinf(), 0)

        def of(columns: slice, block: Tensor) -> Tensor:
            if not (len(x) and len(block)):
                return torch.zeros_like(block)
            with torch.enable_grad():
                given = x.detach().requires_grad_(), block.detach().requires_grad_()
                own, every = ctx.local(*given, columns)
            weights = grad_rows * (own.detach() - level).exp(), grad_columns[columns]
            by_x, by_y = torch.autograd.grad((own, every), given, weights)
            grad_x.add_(by_x)
            return by_y

        return grad_x, ctx.ring.gradient(y, of), None, None


class _RingSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, ring: Ring, local: Local, *parameters: Tensor
    ) -> Tensor:
        given = [value.detach() for value in (x, y, *parameters)]
        x, y, *others = given
        found = x.new_zeros(())
        for columns, block in ring.blocks(y):
            if len(x) and len(block):
                found = found + local(x, block, columns, *others)
        ctx.ring, ctx.local = ring, local
        ctx.save_for_backward(*given)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, y, *parameters = ctx.saved_tensors
        sums = [torch.zeros_like(value) for value in (x, *parameters)]

        def of(columns: slice, block: Tensor) -> Tensor:
            if not (len(x) and len(block)):
                return torch.zeros_like(block)
            with torch.enable_grad():
                given = [value.detach().requires_grad_() for value in (x, block, *parameters)]
                found = ctx.local(*given[:2], columns, *given[2:])
            by_x, by_y, *others = torch.autograd.grad(found, given, grad)
            for value, more in zip(sums, (by_x, *others), strict=True):
                value.add_(more)
            return by_y

        by_y = ctx.ring.gradient(y, of)
        return sums[0], by_y, None, None, *sums[1:]
