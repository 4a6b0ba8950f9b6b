"""Layers on maps `[n, width, H, W]`: dilated convolutions that are mixed cell by cell, and the
two-stage decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, interpolate

from fusemix_core.modules import Modules


class Block(nn.Module):
    """A 3 × 3 convolution, a norm over each row's map, and GELU."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, width, 3, padding=1)
        self.norm = nn.GroupNorm(1, width)

    def forward(self, maps: Tensor) -> Tensor:
        return gelu(self.norm(self.conv(maps)))


class Dilated(nn.Module):
    """3 × 3 convolutions of several dilations, each channel by itself, mixed and added to the map.

    With `content`, a softmax over the dilations gives each cell its own mixture, by the map's
    content there. Otherwise each channel has one mixture for all cells and all rows: the control,
    whose field of view is the same, and its size up to one number per dilation.

    Args:
        width: channels of the map.
        dilations: how far apart the cells are that a convolution sees.
        content: whether mixtures depend on the content.
        seen: channels of the map that mixtures depend on.

    Example:
        Dilated(24, (1, 2, 3), content=True, seen=24)(maps, maps)
    """

    def __init__(self, width: int, dilations: Sequence[int], content: bool, seen: int) -> None:
        super().__init__()
        self.convs = Modules(
            nn.Conv2d(width, width, 3, padding=d, dilation=d, groups=width) for d in dilations
        )
        self.gate = nn.Conv2d(seen, len(dilations), 1) if content else None
        self.shares = None if content else nn.Parameter(torch.zeros(len(dilations), width))
        self.out = nn.Conv2d(width, width, 1)

    def mixture(self, seen: Tensor) -> Tensor:
        """The share of each dilation, `[n, K, 1, H, W]` by content, else `[1, K, width, 1, 1]`; the
        K sum to 1."""
        if self.gate is not None:
            return self.gate(seen).softmax(dim=1)[:, :, None]
        assert self.shares is not None
        return self.shares.softmax(dim=0)[None, :, :, None, None]

    def forward(self, maps: Tensor, seen: Tensor) -> Tensor:
        each = torch.stack([conv(maps) for conv in self.convs], dim=1)  # [n, K, width, H, W]
        return maps + gelu(self.out((self.mixture(seen) * each).sum(dim=1)))


class Decoder(nn.Module):
    """From maps to logits in two stages: of coarse cells, each 2 × 2 cells, then of all cells,
    which see the coarse logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(Block(width, width), nn.Conv2d(width, 1, 1))
        self.fine = nn.Sequential(Block(width + 1, width), nn.Conv2d(width, 1, 1))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(`[n, H · W]`, `[n, ⌈H / 2⌉ · ⌈W / 2⌉]`)."""
        coarse = self.coarse(avg_pool2d(maps, 2, ceil_mode=True))
        larger = interpolate(coarse, size=maps.shape[2:], mode="bilinear", align_corners=False)
        fine = self.fine(torch.cat([maps, larger], dim=1))
        return fine.flatten(1), coarse.flatten(1)
