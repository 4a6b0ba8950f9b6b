"""A step of an optimiser that a flag on the device takes back."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def step_unless(optimiser: torch.optim.Optimizer, bad: Tensor | None) -> None:
    """Let the optimiser step; if `bad` is 1 nothing moves, neither weights nor moments.

    Nobody waits for the flag. An optimiser that reads `found_inf`, as torch's fused ones do, leaves
    all as it is by itself; what any other one has moved is put back.

    Args:
        optimiser: any of torch's form.
        bad: float32 `[]` on the device of the weights, 0 or 1; None for a step in any case.
    """
    if bad is None:
        optimiser.step()
    elif getattr(optimiser, "_step_supports_amp_scaling", False):  # torch's name for `found_inf`
        # Attributes that torch reads and does not declare; `GradScaler` sets them so.
        # pyrefly: ignore[missing-attribute]
        optimiser.grad_scale, optimiser.found_inf = None, bad
        optimiser.step()
    else:
        before = {key: x.detach().clone() for key, x in _tensors(optimiser, bad.device)}
        optimiser.step()
        with torch.no_grad():
            for key, x in _tensors(optimiser, bad.device):
                x.copy_(torch.where(bad > 0, before.get(key, 0), x))


def _tensors(
    optimiser: torch.optim.Optimizer, device: torch.device
) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """Weights, and what the optimiser keeps of each on the device: (weight, name), tensor."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            kept = optimiser.state.get(parameter, {})
            for name, x in {"": parameter, **kept}.items():
                if isinstance(x, Tensor) and x.device == device:
                    yield (id(parameter), name), x
