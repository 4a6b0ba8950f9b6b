"""One batch in several processes: what an objective needs of the rows that the others hold.

Each process of `torch.distributed`'s default group holds its own rows of the batch. An objective
that returns the whole batch's loss in each of them, by these functions, has the gradients of one
process on the whole batch: as usual with DistributedDataParallel, what is differentiated is the sum
of the losses of the P processes, and the parameters' gradients are then averaged over them. All
functions here but `processes` and `rank` are collective: every process calls them, in one order.
In one process they change nothing and cost nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusemix_core.padded import Padded

Latents = TypeVar("Latents", Tensor, Padded)


def processes() -> int:
    """How many processes share each batch; 1 where `torch.distributed` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


class Rows:
    """The rows of a batch in the order of the processes that hold them; `own` are here.

    The processes may hold different numbers of rows, and none.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.sizes = [count]
        if processes() > 1:
            own = torch.tensor([count], device=device)
            found = [torch.empty_like(own) for _ in range(processes())]
            dist.all_gather(found, own)
            self.sizes = torch.cat(found).tolist()
        self.start = sum(self.sizes[: rank()])
        self.own = slice(self.start, self.start + count)

    def gather(self, x: Latents) -> Latents:
        """Every process's rows `[n, …]`, given the own ones; gradients go back to their owner."""
        if len(self.sizes) == 1:
            return x
        if isinstance(x, Padded):  # T is that of the whole batch: see `Batch`, `TokenAdapter`
            return Padded(self.gather(x.values), self.gather(x.mask.to(torch.uint8)).bool())
        return _Gather.apply(x, self)


def total(x: Tensor) -> Tensor:
    """The sum of every process's x, with gradients."""
    return x if processes() == 1 else _Total.apply(x)


def total_logsumexp(x: Tensor) -> Tensor:
    """log Σ exp x over the processes, elementwise and with gradients; -inf counts as nothing."""
    return x if processes() == 1 else _TotalLogSumExp.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        most = max(rows.sizes)
        padded = x.new_zeros(most, *x.shape[1:])  # gloo gathers equal shapes only
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows.sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, rows.sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        # Not reduce_scatter, which gloo has not in every torch that we support.
        return _sum(grad)[ctx.rows.own], None


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
