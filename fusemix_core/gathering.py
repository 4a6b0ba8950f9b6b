"""One batch in several processes: how a loss gathers and sums over them.

Each process of `torch.distributed`'s default group has its own rows of the batch. A loss that is
the whole batch's in each process has the gradients of one process on the whole batch: as usual with
DistributedDataParallel, the sum of the losses of the P processes is differentiated, and the
parameters' gradients are then averaged over the processes.

`Rows.of`, `Rows.gather`, `sum_up`, `total`, `total_logsumexp` and `everyones` are collective: every
process calls them, in the same order. In one process they change nothing and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor

from fusemix_core.numerics import once_differentiable
from fusemix_core.padded import Padded


def processes() -> int:
    """How many processes share each batch; 1 where `torch.distributed` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def part_of(count: int, number: int, parts: int) -> slice:
    """Part `number` of `count` rows in parts that are nearly equal."""
    return slice(count * number // parts, count * (number + 1) // parts)


class Rows:
    """Which rows of a batch each process has, in the order of the processes.

    Args:
        sizes: how many rows each process has; it may have none.

    Attributes:
        start: the first of this process's rows.
        own: this process's rows, a slice of all.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.start = sum(self.sizes[: rank()])
        self.own = slice(self.start, self.start + self.sizes[rank()])

    @classmethod
    def split(cls, count: int) -> Rows:
        """`count` rows in parts that are nearly equal."""
        parts = [part_of(count, number, processes()) for number in range(processes())]
        return cls([part.stop - part.start for part in parts])

    @classmethod
    def of(cls, count: int, device: torch.device) -> Rows:
        """The rows of all processes, of which this one has `count`."""
        if processes() == 1:
            return cls([count])
        own = torch.tensor([count], device=device)
        found = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(found, own)
        return cls(torch.cat(found).tolist())

    @overload
    def gather(self, x: Tensor) -> Tensor: ...
    @overload
    def gather(self, x: Padded) -> Padded: ...
    def gather(self, x: Tensor | Padded) -> Tensor | Padded:
        """All rows `[n, …]`, given this process's; gradients go back to the process of a row."""
        if len(self.sizes) == 1:
            return x
        if isinstance(x, Padded):  # T is that of the whole batch: see `Batch`, `TokenAdapter`
            return Padded(self.gather(x.values), self.gather(x.mask.to(torch.uint8)).bool())
        return _Gather.apply(x, self)


def sum_up(values: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in place; collective, no gradients."""
    if processes() > 1:
        for value in values:
            dist.all_reduce(value)


def total(x: Tensor) -> Tensor:
    """The sum of every process's x, with gradients."""
    return x if processes() == 1 else _Total.apply(x)


def total_logsumexp(x: Tensor) -> Tensor:
    """log Σ exp x over the processes, elementwise and with gradients; -inf counts as nothing."""
    return x if processes() == 1 else _TotalLogSumExp.apply(x)


def everyones(x: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """The sum, or another reduction, of every process's x, without gradients."""
    return x if processes() == 1 else _sum(x, how)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        most, shape = max(rows.sizes), x.shape[1:]
        if not most:
            return x.clone()
        padded = x.new_zeros(most, *shape)  # what is gathered has equal shapes
        padded[: len(x)] = x
        found = x.new_empty(most * len(rows.sizes), *shape)
        _all_gather(found, padded)
        if min(rows.sizes) == most:
            return found
        parts = zip(found.split(most), rows.sizes, strict=True)
        return torch.cat([part[:size] for part, size in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _own_sum(grad, ctx.rows), None


def _all_gather(out: Tensor, x: Tensor) -> None:
    """Every process's x `[n, …]` one after another into `out`."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, x)


def _own_sum(x: Tensor, rows: Rows) -> Tensor:
    """This process's rows of the sum of every process's x `[n, …]`."""
    scatter = getattr(dist, "reduce_scatter_single", None)
    if scatter is None and x.device.type == "cuda":
        scatter = dist.reduce_scatter_tensor
    most, shape = max(rows.sizes), x.shape[1:]
    if scatter is None or not most:  # gloo of torch before 2.14
        return _sum(x)[rows.own]
    parts = x.split(rows.sizes)
    if min(rows.sizes) < most:
        padded = x.new_zeros(len(parts), most, *shape)
        for number, part in enumerate(parts):
            padded[number, : len(part)] = part
        x = padded.flatten(0, 1)
    own = x.new_empty(most, *shape)
    scatter(own, x.contiguous())
    return own[: rows.sizes[rank()]]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _sum(grad)


class _TotalLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        most = _sum(x, dist.ReduceOp.MAX)
        level = most.masked_fill(most.isinf(), 0)
        ctx.save_for_backward(x, result := _sum((x - level).exp()).log() + level)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, result = ctx.saved_tensors
        share = (x - result.masked_fill(result.isinf(), 0)).exp()
        return _sum(grad) * share


def _sum(x: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, how)
    return x
