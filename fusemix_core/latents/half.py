"""Whether an encoder may compute in half precision, where the user leaves that open.

On a GPU its latents are compared with those of float32, once for each encoder and view; the choice
is kept in `<home>/dtypes.json`, so that it is the same for every dataset from then on.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusemix_core.config import ComputeDtype, Dtype
from fusemix_core.devices import out_of_memory
from fusemix_core.disk import make_folder, write_atomically
from fusemix_core.errors import FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.backends import agreement, vectors

AGREEMENTS: dict[ComputeDtype, float] = {"float16": 0.9999, "bfloat16": 0.999}
"""What `agreement` with float32 must be, in the order they are tried. bfloat16 has the range of
float32, and three digits."""

CHOICES = "dtypes.json"

Latents = Callable[[Encoder], Any]
"""The latents of the first items."""


@dataclass(frozen=True)
class Choice:
    """dtype: what an encoder computes in. tried: the agreement of each that was tried, None for one
    that the encoder can't compute in."""

    dtype: ComputeDtype
    tried: dict[ComputeDtype, float | None]

    def sentence(self, name: str) -> str:
        """The choice for the user."""
        if self.dtype in self.tried:
            alike = self.tried[self.dtype]
            return (
                f"{name} computes in {self.dtype}: its latents agree with float32's (cosine "
                f"{alike:.5f}). As before: --dtype float32"
            )
        why = " and ".join(
            f"{dtype} " + ("can't be computed" if alike is None else f"has a cosine of {alike:.5f}")
            for dtype, alike in self.tried.items()
        )
        return f"{name} computes in float32: {why}."


def planned(
    dtype: Dtype, device: str, home: Path, known: str | None, view: str
) -> ComputeDtype | None:
    """The precision of an encoder: as given, what `auto` is known to stand for, or None if that is
    still to be chosen.

    Args:
        dtype: what the user asked for.
        device: the type of the device that encodes. `auto` is float32 on anything but `cuda`.
        home: where choices are kept.
        known: the encoder's fingerprint in float32, if it is known.
        view: the view.
    """
    if dtype != "auto":
        return dtype
    if device != "cuda":
        return "float32"
    return recall(home, known, view) if known else None


def choose(
    load: Callable[[ComputeDtype], Encoder], latents: Latents, device: torch.device
) -> Choice:
    """The half type whose latents agree with float32's, or float32.

    Args:
        load: gives the encoder in a type, and frees the one that it gave before.
        latents: what it returns for the first items.
        device: of the encoder.
    """
    expected, tried = vectors(latents(load("float32"))).cpu(), {}
    for dtype, least in AGREEMENTS.items():
        if dtype == "bfloat16" and not has_bfloat16(device):
            continue
        try:
            found = agreement(expected, vectors(latents(load(dtype))).cpu())
        except (FusemixError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            found = math.nan
        tried[dtype] = None if math.isnan(found) else found
        if found >= least:
            return Choice(dtype, tried)
    return Choice("float32", tried)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 by itself."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


# -- what was chosen before ------------------------------------------------------------------------


def recall(home: Path, known: str, view: str) -> ComputeDtype | None:
    """What was chosen for a view of the encoder with this fingerprint in float32."""
    found = _choices(home).get(f"{known} {view}")
    return found if found in ("float32", *AGREEMENTS) else None


def remember(home: Path, known: str, view: str, dtype: ComputeDtype) -> None:
    """Keep a choice; a home that can't be written costs a comparison the next time."""
    text = json.dumps(_choices(home) | {f"{known} {view}": dtype}, indent=1, sort_keys=True)
    with contextlib.suppress(OSError):
        make_folder(home)
        write_atomically(home / CHOICES, [text.encode()])


def _choices(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / CHOICES).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
