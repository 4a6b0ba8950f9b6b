"""The U-Net of Kandinsky 2.2: noisy latents, a time step and an embedding → the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fusemix_diffusers.light.layers import Attention, Residual

TOKENS = 32
"""How many tokens diffusers makes of an embedding."""

ATTENDS = {
    "ResnetDownsampleBlock2D": False,
    "SimpleCrossAttnDownBlock2D": True,
    "ResnetUpsampleBlock2D": False,
    "SimpleCrossAttnUpBlock2D": True,
}
"""Whether a block of this type has attention."""

DEFAULTS: Mapping[str, Any] = {
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "resnet_time_scale_shift": "default",
}
"""diffusers' defaults of the settings that a config may leave out."""


class UNet(nn.Module):
    """A `UNet2DConditionModel` with Kandinsky's blocks, of the same tensors.

    Args:
        config: what `unet/config.json` contains; see `supported.unet_fault`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        c = {**DEFAULTS, **config}
        widths = list(c["block_out_channels"])
        self.wave, self.flip, self.shift = widths[0], c["flip_sin_to_cos"], c["freq_shift"]
        time, tokens = c.get("time_embedding_dim") or 4 * widths[0], c["cross_attention_dim"]
        self.channels = c["in_channels"]
        self.conv_in = nn.Conv2d(c["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = _Time(widths[0], time)
        self.encoder_hid_proj = _Tokens(c["encoder_hid_dim"], tokens)
        self.add_embedding = _Embedding(c["encoder_hid_dim"], time)

        def residual(channels: int, out: int, resize: int = 0) -> Residual:
            scaled = c["resnet_time_scale_shift"] == "scale_shift"
            groups, eps = c["norm_num_groups"], c["norm_eps"]
            return Residual(channels, out, groups, eps, time=time, scaled=scaled, resize=resize)

        def attention(channels: int) -> Attention:
            heads = channels // c["attention_head_dim"]
            return Attention(channels, heads, c["norm_num_groups"], 1e-5, tokens=tokens)

        layers = c["layers_per_block"]
        self.down_blocks: Any = nn.ModuleList()
        skips, channels = [widths[0]], widths[0]
        for i, (kind, width) in enumerate(zip(c["down_block_types"], widths, strict=True)):
            block = _Block()
            for _ in range(layers):
                block.add(residual(channels, width), attention(width) if ATTENDS[kind] else None)
                channels = width
                skips.append(width)
            if i < len(widths) - 1:
                block.downsamplers = nn.ModuleList([residual(width, width, -1)])
                skips.append(width)
            self.down_blocks.append(block)
        self.mid_block = _Block()
        self.mid_block.add(residual(channels, channels), attention(channels))
        self.mid_block.add(residual(channels, channels), None)
        self.up_blocks: Any = nn.ModuleList()
        for i, (kind, width) in enumerate(zip(c["up_block_types"], reversed(widths), strict=True)):
            block = _Block()
            for _ in range(layers + 1):
                wide = channels + skips.pop()
                block.add(residual(wide, width), attention(width) if ATTENDS[kind] else None)
                channels = width
            if i < len(widths) - 1:
                block.upsamplers = nn.ModuleList([residual(width, width, 1)])
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(c["norm_num_groups"], widths[0], eps=c["norm_eps"])
        self.conv_out = nn.Conv2d(widths[0], c["out_channels"], 3, padding=1)

    def forward(self, x: Tensor, step: Tensor, embeddings: Tensor) -> Tensor:
        """The noise in `x [n, c, h, w]`, with further channels behind it.

        Args:
            x: noisy latents.
            step: the time step, one number or `[n]`.
            embeddings: the condition `[n, d]`.
        """
        time = self.time_embedding(self._waves(step.expand(len(x))).to(x.dtype))
        time = time + self.add_embedding(embeddings)
        tokens = self.encoder_hid_proj(embeddings)
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            for i in range(len(block.resnets)):
                x = block.layer(i, x, time, tokens)
                skips.append(x)
            for half in getattr(block, "downsamplers", ()):
                x = half(x, time)
                skips.append(x)
        for i in range(2):
            x = self.mid_block.layer(i, x, time, tokens)
        for block in self.up_blocks:
            for i in range(len(block.resnets)):
                x = block.layer(i, torch.cat([x, skips.pop()], dim=1), time, tokens)
            for double in getattr(block, "upsamplers", ()):
                x = double(x, time)
        return self.conv_out(silu(self.conv_norm_out(x)))

    def _waves(self, steps: Tensor) -> Tensor:
        """float32 `[n, wave]`: sines and cosines of the time steps."""
        half = self.wave // 2
        exponent = -math.log(10_000) * torch.arange(half, device=steps.device).float()
        angles = steps[:, None].float() * torch.exp(exponent / (half - self.shift))
        parts = [torch.cos(angles), torch.sin(angles)]
        return torch.cat(parts if self.flip else parts[::-1], dim=-1)


class _Block(nn.Module):
    """Residual layers, some with attention behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.resnets = nn.ModuleList()
        self.attentions = nn.ModuleList()

    def add(self, residual: Residual, attention: Attention | None) -> None:
        self.resnets.append(residual)
        if attention is not None:
            self.attentions.append(attention)

    def layer(self, i: int, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        x = self.resnets[i](x, time)
        return self.attentions[i](x, tokens) if i < len(self.attentions) else x


class _Time(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(silu(self.linear_1(x)))


class _Embedding(nn.Module):
    """The condition as a part of the time embedding."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.image_proj = nn.Linear(dim, out)
        self.image_norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.image_norm(self.image_proj(x))


class _Tokens(nn.Module):
    """The condition as tokens, to which the positions attend."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.image_embeds = nn.Linear(dim, TOKENS * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.image_embeds(x).unflatten(1, (TOKENS, -1)))
