"""Batches to a GPU and latents back from it, while it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fusemix_core.padded import Padded


def over(batch: Any, how: Callable[[Tensor], Tensor]) -> Any:
    """A batch with each of its tensors replaced, in dicts, lists and tuples too."""
    if isinstance(batch, Tensor):
        return how(batch)
    if isinstance(batch, Mapping):
        return {name: over(value, how) for name, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(over(value, how) for value in batch)
    return batch


def pinned(batch: Any) -> Any:
    """The batch in memory that a GPU can read by itself."""
    return over(batch, Tensor.pin_memory)


class Transfer:
    """Transfers to one device and back. On anything but a CUDA device nothing is copied.

    A batch is sent on a stream of its own, so that it arrives while the one before is encoded.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def sent(self, batch: Any) -> Any:
        """The batch on the device; what is computed from now on waits for it."""
        if not self.cuda:
            return batch
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            there = over(batch, lambda x: x.to(self.device, non_blocking=True))
        current.wait_stream(self._stream)

        def in_use(x: Tensor) -> Tensor:
            x.record_stream(current)
            return x

        return over(there, in_use)

    def fetched(self, latents: Any) -> Callable[[], Any] | None:
        """Begin to copy what an encoder returned to the CPU; called, the result waits for it and
        gives it. None for what is not on the device, or is not latents."""
        parts = [latents.values, latents.mask] if isinstance(latents, Padded) else [latents]
        if not self.cuda or not all(isinstance(x, Tensor) and x.is_cuda for x in parts):
            return None
        here = [_copy(x.detach()) for x in parts]
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> Any:
            done.synchronize()
            return Padded(*here) if isinstance(latents, Padded) else here[0]

        return wait


def _copy(x: Tensor) -> Tensor:
    """On the CPU, floats as float32, when the stream gets there."""
    x = x.float() if x.is_floating_point() else x
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
