"""The views of a timm model: which it has, and how each is made of what timm gives.

timm's `forward_features` gives one of two things: a map, `[n, d, H, W]` or `[n, H, W, d]`, or
tokens `[n, T, d]`, of which the first `num_prefix_tokens` are not patches (class token, registers)
and the rest are those of a map, row by row.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

Size = tuple[int, int]
AREAS = 3
"""Rows and columns of the areas of `tokens-areas`."""
TimmModel: TypeAlias = Any
"""A model of timm's: they have methods in common, and no class."""


class ViewNetwork(nn.Module):
    """`view_of` as a module."""

    def __init__(self, model: TimmModel, view: str) -> None:
        super().__init__()
        self.model, self.view = model, view

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return view_of(self.model, pixels, self.view)


def views_of(model: TimmModel, pixels: Tensor) -> tuple[str, ...]:
    """The views that the model has for pictures of the size of `pixels [1, 3, h, w]`."""
    features = model.forward_features(pixels)
    if not isinstance(features, Tensor):
        return ("pooled",)
    if features.ndim == 4:
        return ("pooled", "grid", "tokens-areas")
    if features.ndim != 3 or plane(model, features, pixels) is None:
        return ("pooled",)
    views = ["pooled", "tokens", "grid"]
    if getattr(model, "cls_token", None) is not None and prefix(model):
        views.insert(1, "pooled-cls-mean")
    intermediates = getattr(model, "forward_intermediates", None)
    if intermediates and "return_prefix_tokens" in inspect.signature(intermediates).parameters:
        views.append("layers")
    return tuple(views)


def view_of(model: TimmModel, pixels: Tensor, view: str) -> Tensor:
    """A view that the model has, of a batch of pictures `[n, 3, h, w]`."""
    if view == "layers":
        return layers(model, pixels)
    features = model.forward_features(pixels)
    if view == "pooled":
        return model.forward_head(features, pre_logits=True)
    if features.ndim == 4:
        places = features.permute(0, 3, 1, 2) if channels_last(model) else features
        return areas(places) if view == "tokens-areas" else places.permute(0, 2, 3, 1)
    patches = features[:, prefix(model) :]
    if view == "pooled-cls-mean":
        return torch.cat([features[:, 0], patches.mean(dim=1)], dim=1)
    if view == "grid":
        return patches.unflatten(1, plane(model, features, pixels))
    return patches


def layers(model: TimmModel, pixels: Tensor) -> Tensor:
    """`[n, L, d]`: what timm's own pooling gives after every block.

    The last is `pooled` itself, last norm and all. Where timm pools in a way that was trained for
    the last block only (attention, as in SigLIP), the mean of the patch tokens stands for it in all
    blocks, the last one included.
    """
    final, blocks = model.forward_intermediates(
        pixels, norm=False, output_fmt="NLC", return_prefix_tokens=prefix(model) > 0
    )
    pairs = blocks if prefix(model) else [(patches, None) for patches in blocks]
    by_token = model.global_pool == "token"
    pooled = [before[:, 0] if by_token else patches.mean(dim=1) for patches, before in pairs]
    if model.global_pool in ("token", "avg"):
        pooled[-1] = model.forward_head(final, pre_logits=True)
    else:
        pooled[-1] = final[:, prefix(model) :].mean(dim=1)
    return torch.stack(pooled, dim=1)


def areas(places: Tensor) -> Tensor:
    """The mean of a map `[n, d, H, W]`, then the means of 3 x 3 areas of it, `[n, 10, d]`."""
    parts = adaptive_avg_pool2d(places, AREAS).flatten(2)
    return torch.cat([places.mean(dim=(2, 3))[..., None], parts], dim=2).transpose(1, 2)


def prefix(model: TimmModel) -> int:
    """How many tokens come before those of the patches."""
    return getattr(model, "num_prefix_tokens", 0)


def channels_last(model: TimmModel) -> bool:
    """Whether the model's maps are `[n, H, W, d]`."""
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def plane(model: TimmModel, features: Tensor, pixels: Tensor) -> Size | None:
    """Height and width of the map that the patch tokens are, as the picture's are to each other;
    None if they can't be a map."""
    tokens = features.shape[1] - prefix(model)
    height, width = pixels.shape[-2:]
    if tokens < 2:  # a class token alone
        return None
    told = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if told and math.prod(told) == tokens:
        return tuple(told)
    rows = max(1, round(math.sqrt(tokens * height / width)))
    return (rows, tokens // rows) if tokens % rows == 0 else None
