"""Which device to run on, by name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from fusemix_core.errors import ConfigError

_NO_ROOM = ("out of memory", "_status_alloc_failed", "can't allocate memory")
"""In errors of cuBLAS, cuDNN, CTranslate2 and the CPU's allocator."""


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device that `name` stands for: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ….

    `auto` is the machine's accelerator if there is one, else the CPU. Raises `ConfigError` for a
    name that is not a device and for a device that this machine, or this build of torch, has not.
    """
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"'{name}' is not a device.", _available(accelerator)) from error
    if device.type == "cpu":
        return torch.device("cpu")
    there = accelerator is not None and device.type == accelerator.type
    if not there or (device.index or 0) >= torch.accelerator.device_count():
        raise ConfigError(f"The device '{name}' is not available.", _available(accelerator))
    return device


def exact_device(device: torch.device) -> torch.device:
    """The device for what must be computed in float64, such as closed forms: Apple's `mps` has no
    float64, so there it is the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has no float64."""
    return torch.float64 if exact_device(device) == device else torch.float32


def as_current(device: torch.device) -> AbstractContextManager:
    """Make it this thread's current device inside, if it has a number.

    A new thread begins with device 0, and kernels of Triton and of extensions run on the current
    device, wherever their tensors are.
    """
    if device.type == "cpu" or device.index is None:
        return nullcontext()
    module = torch.get_device_module(device)
    return module.device(device) if hasattr(module, "device") else nullcontext()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device had no room: torch's own error, or one by a library that torch calls."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _NO_ROOM)


def devices_like(device: torch.device) -> list[torch.device]:
    """All devices that a resolved one stands for: `cuda` for each of the machine's, `cuda:1` for
    itself."""
    if device.type == "cpu" or device.index is not None:
        return [device]
    count = torch.accelerator.device_count()
    return [torch.device(device.type, i) for i in range(count)] if count > 1 else [device]


def _available(accelerator: torch.device | None) -> str:
    names = ["auto", "cpu"]
    if accelerator is not None:
        count = torch.accelerator.device_count()
        names += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(count))]
    return f"Available here: {', '.join(names)}."
