"""Token rolling of All-in-One (Wang et al., arXiv:2203.07303): some tokens of a frame are replaced
by those of the frame before or after, without a parameter.

All frames of a clip form a circle: the first one is after the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 8
"""One of so many tokens rolls in each direction."""


def roll(frames: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The rolling that the published model uses. Of l tokens, f = l // 8: token 0 stays, the next f
    are those of the frame before, the last f those of the frame after.

    With fewer than 8 tokens per frame, all are those of the frame after, as in the published code.

    Args:
        frames: `[n, F, l, d]`.
        lengths: int64 `[n]`: how many frames each clip has; the others are left as they are. None
            if each has F.

    Returns:
        `[n, F, l, d]`.

    Example:
        frames = torch.arange(3.0)[None, :, None, None].expand(1, 3, 16, 1)
        roll(frames)[0, 1, :, 0]  # 1, then 0 twice, then 1, then 2 twice
    """
    count = frames.shape[2]
    share = count // SHARE
    after = neighbour(frames, 1, lengths)
    if not share:
        return after
    before, last = neighbour(frames, -1, lengths), count - share
    parts = (
        frames[:, :, :1],
        before[:, :, 1 : 1 + share],
        frames[:, :, 1 + share : last],
        after[:, :, last:],
    )
    return torch.cat(parts, dim=2)


def roll_by_layer(frames: Tensor, layer: int, lengths: Tensor | None = None) -> Tensor:
    """A variant in the published code: other tokens in each layer, all from the frame before.

    Tokens between the first one and those that roll become zero, so information is lost in all
    layers but each eighth.

    Args:
        frames, lengths: as in `roll`.
        layer: number of the layer, from 0.
    """
    count = frames.shape[2]
    share = count // SHARE
    start = 1 + share * (layer % SHARE)
    end = min(start + share, count)
    before = neighbour(frames, -1, lengths)
    lost = torch.zeros_like(frames[:, :, 1:start])
    return torch.cat([frames[:, :, :1], lost, before[:, :, start:end], frames[:, :, end:]], dim=2)


def roll_chosen(frames: Tensor, chosen: Tensor, lengths: Tensor | None = None) -> Tensor:
    """A variant in the published code: the tokens `chosen`, int64, are from the frame before.

    The published code changes its input; this one doesn't.
    """
    rolls = torch.zeros(frames.shape[2], dtype=torch.bool, device=frames.device)
    rolls[chosen] = True
    return torch.where(rolls[:, None], neighbour(frames, -1, lengths), frames)


def neighbour(frames: Tensor, step: int, lengths: Tensor | None = None) -> Tensor:
    """The frame that is `step` after each, in the circle of its clip's frames, `[n, F, l, d]`."""
    if lengths is None:
        return frames.roll(-step, dims=1)
    places = torch.arange(frames.shape[1], device=frames.device)
    own = lengths[:, None]
    index = torch.where(places < own, (places + step) % own.clamp(min=1), places)
    return frames.gather(1, index[:, :, None, None].expand_as(frames))
