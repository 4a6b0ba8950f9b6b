"""Blocks applied one after another to one latent, for training on rows that have several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusemix_mm_lego.blocks import Block, real


def stacked(
    blocks: Sequence[Block], inputs: Sequence[Tensor], masks: Sequence[Tensor], present: Tensor
) -> Tensor:
    """The real latent `[n, c, d]` that each block begins with where the one before ended.

    Args:
        blocks: of the K modalities.
        inputs: tokens `[n, t, width]` of each.
        masks: bool `[n, t]` of each; a row that lacks the modality has one token, too.
        present: bool `[n, K]`; a block leaves the latent of a row without it as it is.
    """
    latent = blocks[0].latent.expand(len(present), -1, -1)
    for block, x, mask, there in zip(blocks, inputs, masks, present.T, strict=True):
        found = real(block(x, mask, latent))
        latent = torch.where(there[:, None, None], found, latent)
    return latent


def woven(
    blocks: Sequence[Block],
    inputs: Sequence[Tensor],
    masks: Sequence[Tensor],
    present: Tensor,
    latent: Tensor,
    depth: int,
) -> Tensor:
    """The latent `[n, c, d]` that reads the modalities in turn, `depth` times: without an FFT, with
    the first layer of each block only, and with its self-attention. Arguments as of `stacked`.

    Args:
        latent: `[c, d]`, to begin with.
    """
    latent, states = latent.expand(len(present), -1, -1), list(inputs)
    for _ in range(depth):
        for k, block in enumerate(blocks):
            layer, x = block.layers[0], states[k]
            x = layer.mod_attn(x, mask=masks[k]) + x
            states[k] = layer.mod_ff(x) + x
            found = layer.read(latent, states[k], masks[k])
            latent = torch.where(present[:, k, None, None], found, latent)
    return latent
