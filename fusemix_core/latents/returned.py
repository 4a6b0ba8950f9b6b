"""What an encoder returned for a batch, held against the contract and brought to the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Padded
from fusemix_core.specs import EncoderSpec, kind_of

_AXES = {"pooled": "", "layers": "L, ", "tokens": "T, ", "grid": "H, W, ", "time": "T, "}
"""The axes of each kind of view between the items and the width."""


@dataclass(frozen=True)
class Latents:
    """float32 latents of n items: `[n, ...]`, or with `lengths` int64 `[n]`, if the items differ
    in length, those of all one after another, `[sum of lengths, d]`."""

    values: np.ndarray
    lengths: np.ndarray | None = None

    def tensor(self) -> Tensor | Padded:
        """The same, one entry per item: `[n, ...]`, or `Padded` if the items differ in length."""
        values = torch.from_numpy(self.values)
        if self.lengths is None:
            return values
        return Padded.of(values.split(self.lengths.tolist()))

    @property
    def form(self) -> tuple[bool, tuple[int, ...]]:
        """The common form of all batches of a view: whether lengths differ, the shape of one."""
        return self.lengths is not None, self.values.shape[1:]


def latents_of(
    spec: EncoderSpec, view: str, returned: Any, n: int, describe: Callable[[int], str]
) -> Latents:
    """The latents of n items from what `encode` returned; `describe(i)` names item i of the batch.

    Raises `ContractError` for anything but finite floats of the view's shape.
    """
    name = f"Encoder '{spec.name}'"
    width = spec.dim if spec.dim and view == spec.views[0] else "d"
    expected = f"latents of shape [{n}, {_AXES.get(kind_of(view), '…, ')}{width}]"
    if isinstance(returned, Padded) and kind_of(view) != "pooled":
        found = _unpadded(name, expected, returned, n, describe)
    else:
        _check_floats(name, expected, returned)
        _check_shape(spec, view, expected, returned, n)
        # A copy, because an encoder may use its output's memory again for the next batch.
        found = Latents(returned.detach().to("cpu", torch.float32, copy=True).numpy())
    _check_finite(name, found, n, returned, describe)
    return found


def _check_floats(name: str, expected: str, values: Any) -> None:
    if not isinstance(values, Tensor):
        raise ContractError(name, f"a Tensor of {expected}", f"a {type(values).__name__}")
    if not values.is_floating_point():
        raise ContractError(name, f"floating-point {expected}", str(values.dtype))


def _check_shape(spec: EncoderSpec, view: str, expected: str, values: Tensor, n: int) -> None:
    axes = _AXES.get(kind_of(view))
    fits = values.ndim > 1 and len(values) == n and values[0].numel() > 0
    if fits and axes is not None:
        fits = values.ndim == 2 + axes.count(",")
    if fits and spec.dim and view == spec.views[0]:
        fits = values.shape[-1] == spec.dim
    if not fits:
        raise ContractError(f"Encoder '{spec.name}'", expected, f"shape {list(values.shape)}")


def _unpadded(
    name: str, expected: str, padded: Padded, n: int, describe: Callable[[int], str]
) -> Latents:
    """The latents without the padding, item after item."""
    values, mask = padded.values, padded.mask
    _check_floats(name, f"padded {expected}", values)
    if values.ndim != 3 or len(values) != n:
        raise ContractError(name, f"padded {expected}", f"shape {list(values.shape)}")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != values.shape[:2]:
        got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else str(type(mask))
        raise ContractError(name, f"a bool mask of shape {list(values.shape[:2])}", got)
    lengths = mask.sum(dim=1).cpu().numpy()
    if not lengths.all():
        item = describe(int(np.flatnonzero(lengths == 0)[0]))
        raise ContractError(name, "one latent or more of each item", f"none of '{item[:200]}'")
    if not bool((mask[:, :-1] | ~mask[:, 1:]).all()):
        raise ContractError(name, "padding after an item's own latents", "a mask with gaps")
    own = values.detach()[mask.to(values.device)]
    return Latents(own.to("cpu", torch.float32).numpy(), lengths)


def _check_finite(
    name: str, found: Latents, n: int, returned: Any, describe: Callable[[int], str]
) -> None:
    finite = np.isfinite(found.values).reshape(len(found.values), -1).all(axis=1)
    if finite.all():
        return
    item = np.arange(n) if found.lengths is None else np.repeat(np.arange(n), found.lengths)
    bad = np.unique(item[~finite])
    values = returned.values if isinstance(returned, Padded) else returned
    raise ContractError(
        name,
        "finite latents",
        f"NaN or infinity for {len(bad)} of {n} items in {values.dtype}, "
        f"the first '{describe(int(bad[0]))[:200]}'",
    )
