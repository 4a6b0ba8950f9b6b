"""Boxes in an image: how far two of them overlap, and the losses of predicted ones.

A box is `[n, 4]`, in shares of the image's width and height: its centre and size, unless a name
says that it is its corners (left, top, right, bottom).
"""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = 1e-4
"""If all corners of a predicted box are below this, the prediction is that there is none."""


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(left and top, right and bottom), each `[n, 2]`, of boxes that are centre and size."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return centre - size / 2, centre + size / 2


def of_corners(boxes: Tensor) -> Tensor:
    """Centre and size `[n, 4]` of boxes that are left, top, right and bottom."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], dim=1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """`[n]`: the area that two boxes share over the area of both, 0 if both are empty."""
    shared, union, _ = _areas(a, b)
    return shared / union


def giou(a: Tensor, b: Tensor) -> Tensor:
    """`[n]`: IoU - (C - U)/C of boxes, with U the area of the union and C that of the smallest box
    around both (arXiv 1902.09630)."""
    shared, union, around = _areas(a, b)
    return shared / union - (around - union) / around


def says_none(boxes: Tensor) -> Tensor:
    """bool `[n]`: the boxes with all corners below `EMPTY`, whatever their sign."""
    return (torch.cat(corners(boxes), dim=1).abs() < EMPTY).all(dim=1)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The areas `[n]` that both share, of their union, and of the smallest box around both. The
    last two are above 0."""
    low_a, high_a, low_b, high_b = *corners(a), *corners(b)
    shared = _area(torch.maximum(low_a, low_b), torch.minimum(high_a, high_b))
    union = _area(low_a, high_a) + _area(low_b, high_b) - shared
    around = _area(torch.minimum(low_a, low_b), torch.maximum(high_a, high_b))
    tiny = torch.finfo(union.dtype).tiny
    return shared, union.clamp(min=tiny), around.clamp(min=tiny)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=1)
