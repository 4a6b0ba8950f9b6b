"""Gradients of several processes, averaged while the backward pass makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fusemix_core.gathering import processes

BUCKET_BYTES = 1 << 25
"""Gradients that travel together: large enough to travel at full speed, small enough to start
early."""


class Gradients:
    """Averages the gradients of parameters over the processes: those of the whole batch, see
    `gathering`.

    Parameters lie in buckets, the last ones first, as a backward pass comes to them. A bucket is
    sent as soon as its gradients are there, and after those before it, so that all processes send
    the same ones. The averages of a step depend on nothing but the parameters: a fit that was
    stopped goes on bit for bit.

    Args:
        parameters: those that are trained, the same in all processes.

    Example:
        gradients = Gradients(parameters)
        with gradients.averaged():
            loss.backward()
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.buckets: list[_Bucket] = []
        if processes() > 1:
            self.buckets = [_Bucket(some) for some in _buckets(list(parameters))]
        self.group = _own_group() if self.buckets else None
        self._sent = 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The scope of a backward pass, after which each gradient is the mean over the processes.

        One that no process has stays None, as that of a modality which no row of the batch has.
        """
        self._sent, hooks = 0, []
        for bucket in self.buckets:
            bucket.missing = set(bucket.parameters)
            for parameter in bucket.parameters:
                hook = partial(self._has, bucket)
                hooks.append(parameter.register_post_accumulate_grad_hook(hook))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if self.buckets:
            self._finish()

    def _has(self, bucket: _Bucket, parameter: nn.Parameter) -> None:
        """A gradient is complete: send the buckets whose turn it is."""
        bucket.missing.discard(parameter)
        while self._sent < len(self.buckets) and not self.buckets[self._sent].missing:
            self.buckets[self._sent].send(self.group)
            self._sent += 1

    def _finish(self) -> None:
        """Send the rest, with zeros for gradients that this process lacks, and take over the means.

        Which gradients there are the processes tell each other's CPUs. A GPU is not waited for.
        That goes by the group of everything else: one process may have sent more buckets by now
        than another, so its place among the buckets would not be the same in all.
        """
        there = torch.tensor([p.grad is not None for b in self.buckets for p in b.parameters])
        there = there.to(torch.uint8)
        told = dist.all_reduce(there, dist.ReduceOp.MAX, async_op=True)
        for bucket in self.buckets[self._sent :]:
            bucket.send(self.group)
        told.wait()
        flags = iter(there.tolist())
        for bucket in self.buckets:
            bucket.take([bool(next(flags)) for _ in bucket.parameters])


class _Bucket:
    """Parameters of one type whose gradients travel as one tensor."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing: set[nn.Parameter] = set()
        self._flat: Tensor | None = None
        self._work: Any = None

    def send(self, group: Any) -> None:
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self._flat = torch.cat([part.flatten() for part in parts])
        self._work = dist.all_reduce(self._flat, group=group, async_op=True)

    def take(self, there: list[bool]) -> None:
        """Wait for the sums, and make the means the gradients of the parameters that have some."""
        assert self._flat is not None, "nothing was sent"
        self._work.wait()
        means = self._flat.div_(processes()).split([p.numel() for p in self.parameters])
        for parameter, any_has, mean in zip(self.parameters, there, means, strict=True):
            parameter.grad = mean.view_as(parameter) if any_has else None
        self._flat = self._work = None


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters from the last to the first, those of one type and device together."""
    kinds = dict.fromkeys((p.dtype, p.device) for p in reversed(parameters))
    for kind in kinds:
        some, size = [], 0
        for parameter in reversed(parameters):
            if (parameter.dtype, parameter.device) != kind:
                continue
            if some and size + parameter.nbytes > BUCKET_BYTES:
                yield some
                some, size = [], 0
            some.append(parameter)
            size += parameter.nbytes
        yield some


_GROUPS: list[tuple[Any, Any]] = []
"""The group of all processes, and the one of the same processes that gradients travel in."""


def _own_group() -> Any:
    """A group of all processes for gradients, so that these pass what else a backward pass sends.

    It is made once for as long as the processes are joined.
    """
    world = dist.group.WORLD
    if not _GROUPS or _GROUPS[0][0] is not world:
        _GROUPS[:] = [(world, dist.new_group())]
    return _GROUPS[0][1]
