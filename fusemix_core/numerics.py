"""In which numbers products are taken: exactly in float32, in TF32, or in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.autograd import function

Numbers = Literal["float32", "tf32", "half"]
T = TypeVar("T")


@contextmanager
def exact() -> Iterator[None]:
    """Products of float32 are taken in float32 inside, whatever surrounds them: no TF32 and no
    autocast. For closed forms, distances and metrics. Also a decorator.

    TF32 is a setting of the process: other threads see it too.

    Example:
        with torch.autocast("cuda", torch.bfloat16), exact():
            distances = torch.cdist(x, y)
    """
    with ExitStack() as scopes:
        for kind in _device_types():
            if torch.is_autocast_enabled(kind):
                scopes.enter_context(torch.autocast(kind, enabled=False))
        scopes.enter_context(_products("highest"))
        yield


@dataclass(frozen=True)
class Precision:
    """The numbers that a fit trains in.

    name: `float32`; `tf32`, where products of the step round what they multiply to ten bits;
    `half`, where adapters run in bfloat16 too. Weights, optimiser, norms and embeddings are
    float32, always. device: the type of the device that trains.
    """

    name: Numbers = "float32"
    device: str = "cpu"

    @property
    def rounds(self) -> bool:
        """Whether a loss may round what it multiplies to half precision: on a device that gains by
        it."""
        return self.name != "float32" and self.device == "cuda"

    @contextmanager
    def step(self) -> Iterator[None]:
        """The scope of a training step, its backward included."""
        with _products("highest" if self.name == "float32" else "high"):
            yield

    def adapters(self) -> AbstractContextManager:
        """The scope in which adapters run. What they give there may be bfloat16."""
        half = self.name == "half"
        return torch.autocast(self.device, torch.bfloat16) if half else nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or as it is if it is float64."""
    return x if x.dtype == torch.float64 else x.float()


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Products of float32 in TF32 (`high`) or exactly (`highest`) inside.

    Torch has two interfaces for it, and refuses the one after the other was used alone: so what
    the user took is taken here.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul = torch.backends.cuda.matmul
        kept, matmul.fp32_precision = matmul.fp32_precision, _NEW[precision]
        try:
            yield
        finally:
            matmul.fp32_precision = kept
        return
    if before == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


_NEW = {"highest": "ieee", "high": "tf32"}


def _device_types() -> list[str]:
    """Without an accelerator torch 2.6 raises if it is asked for the current one."""
    there = torch.accelerator.is_available()
    accelerator = torch.accelerator.current_accelerator() if there else None
    return ["cpu"] if accelerator is None else ["cpu", accelerator.type]


def once_differentiable(backward: Callable[..., T]) -> Callable[..., T]:
    """`torch.autograd.function.once_differentiable` with a type that fits any `backward`: each
    takes the gradients of what its own `forward` returns."""
    return function.once_differentiable(backward)
