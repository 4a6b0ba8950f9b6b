"""Which numbers a fit trains in, on which device."""

from __future__ import annotations

import torch

from fusemix_core.config import FitPrecision
from fusemix_core.errors import ConfigError
from fusemix_core.numerics import Precision

LEAST_CAPABILITY = (8, 0)
"""Of a GPU whose products in bfloat16 and TF32 are faster than those in float32 (Ampere)."""


def precision_of(name: FitPrecision, device: torch.device) -> Precision:
    """What `training.precision` stands for on a device.

    Args:
        name: `auto`, `float32`, `tf32` or `half`. `auto` is `half` on a GPU of compute capability 8
            or more, and `float32` anywhere else.
        device: that trains.

    Raises:
        ConfigError: for numbers that the device has not, or has not fast.
    """
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY
    if name == "auto":
        return Precision("half" if fast else "float32", device.type)
    if name == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"training.precision is tf32, which {device.type} does not have.",
            "Use --set training.precision=auto",
        )
    if name != "float32" and device.type == "cuda" and not fast:
        major, minor = torch.cuda.get_device_capability(device)
        raise ConfigError(
            f"training.precision is {name}, and {device} has compute capability {major}.{minor}; "
            "it takes 8.0 or more.",
            "Use --set training.precision=auto",
        )
    return Precision(name, device.type)
