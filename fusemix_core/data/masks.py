"""Masks as facts: a cell names an image whose pixels are classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fusemix_core.data.grids import Find, GridHeld
from fusemix_core.data.references import Fault, FileReference

SIDE = 56
"""Pixels of a side. The middle square of a mask is taken, as encoders take that of an image, and
reduced to it."""
_INDEXED = ("1", "L", "P", "I", "I;16", "I;16B", "F")
"""Modes of Pillow with one number per pixel."""


@dataclass(frozen=True)
class MaskPlace:
    """A mask in an image file."""

    path: str


def mask_cell(cell: Any, find: Find) -> MaskPlace | GridHeld | Fault:
    """The mask that a filled cell names, `mask.png`, or is: a matrix."""
    if getattr(cell, "ndim", None) == 2:
        return GridHeld(np.asarray(cell))
    if not isinstance(cell, str):
        return Fault(f"contains a {type(cell).__name__}, not a mask: name an image file")
    file = find(cell.strip())
    if not isinstance(file, FileReference):
        return file if isinstance(file, Fault) else Fault("names no file")
    return MaskPlace(file.path)


def read_mask(value: MaskPlace | GridHeld) -> np.ndarray | Fault:
    """The mask float32 `[SIDE, SIDE]`, each pixel the nearest one of the file; or why it can't be
    read."""
    found = value.values if isinstance(value, GridHeld) else _pixels(value.path)
    if isinstance(found, Fault):
        return found
    if found.ndim != 2 or not found.size or found.dtype.kind not in "biuf":
        return Fault(f"is an array of {found.dtype} of shape {found.shape}, not a mask [H, W]")
    side = min(found.shape)
    top, left = ((length - side) // 2 for length in found.shape)
    at = ((np.arange(SIDE) + 0.5) * side / SIDE).astype(int)
    return found[top + at[:, None], left + at].astype(np.float32)


def _pixels(path: str) -> np.ndarray | Fault:
    """The numbers of an image, `[H, W]`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in _INDEXED:
                return np.asarray(image)
            colours = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Fault(f"{path} can't be read as an image: {error}")
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    return Fault(f"{path} has colours; a mask has one number per pixel: save it as a grey PNG")
