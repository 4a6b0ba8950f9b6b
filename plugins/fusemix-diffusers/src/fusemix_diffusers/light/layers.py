"""The layers of the U-Net and of the image decoder. Attributes are named as in diffusers' files."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, scaled_dot_product_attention, silu


class SpatialNorm(nn.Module):
    """Group norm, then a scale and shift that the latents decide (MoVQ, arXiv:2209.09002)."""

    def __init__(self, channels: int, latents: int) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(32, channels, eps=1e-6)
        self.conv_y = nn.Conv2d(latents, channels, 1)
        self.conv_b = nn.Conv2d(latents, channels, 1)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        latents = interpolate(latents, size=x.shape[-2:], mode="nearest")
        return self.norm_layer(x) * self.conv_y(latents) + self.conv_b(latents)


class Residual(nn.Module):
    """Two convolutions beside a shortcut, at the same, half or double resolution.

    Args:
        channels: of the input.
        out: channels of the output.
        groups: of the group norms.
        eps: of the group norms.
        time: width of the time embedding; 0 if there is none.
        scaled: the time embedding scales and shifts; else it is added.
        latents: channels of the latents that decide the norms; 0 for plain group norms.
        resize: -1 halves the resolution, 1 doubles it.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        groups: int,
        eps: float,
        *,
        time: int = 0,
        scaled: bool = False,
        latents: int = 0,
        resize: int = 0,
    ) -> None:
        super().__init__()
        self.scaled, self.spatial, self.resize = scaled, bool(latents), resize

        def norm(width: int) -> nn.Module:
            if latents:
                return SpatialNorm(width, latents)
            return nn.GroupNorm(groups, width, eps=eps)

        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        if time:
            self.time_emb_proj = nn.Linear(time, 2 * out if scaled else out)
        self.norm2 = norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.conv_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """`condition`: the time embedding `[n, time]`, or the latents `[n, c, h, w]`."""
        given = (condition,) if self.spatial else ()
        hidden = silu(self.norm1(x, *given))
        x, hidden = self._resized(x), self._resized(hidden)
        hidden = self.conv1(hidden)
        if hasattr(self, "time_emb_proj"):
            assert condition is not None
            time = self.time_emb_proj(silu(condition))[:, :, None, None]
            if self.scaled:
                scale, shift = time.chunk(2, dim=1)
                hidden = self.norm2(hidden) * (1 + scale) + shift
            else:
                hidden = self.norm2(hidden + time)
        else:
            hidden = self.norm2(hidden, *given)
        hidden = self.conv2(silu(hidden))
        return (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + hidden

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize < 0:
            return avg_pool2d(x, 2, stride=2)
        return interpolate(x, scale_factor=2.0, mode="nearest") if self.resize else x


class Attention(nn.Module):
    """Every position looks at all others, and at the condition's tokens if there are any.

    Args:
        channels: of the input and the output.
        heads: into which the channels are divided.
        groups: of the group norm.
        eps: of the group norm.
        tokens: width of the condition's tokens; 0 if there are none.
        latents: channels of the latents that decide the norm; 0 for a plain group norm.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        eps: float,
        *,
        tokens: int = 0,
        latents: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        if latents:
            self.spatial_norm = SpatialNorm(channels, latents)
        else:
            self.group_norm = nn.GroupNorm(groups, channels, eps=eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        if tokens:
            self.add_k_proj = nn.Linear(tokens, channels)
            self.add_v_proj = nn.Linear(tokens, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """`condition`: the tokens `[n, T, tokens]`, or the latents `[n, c, h, w]`."""
        if hasattr(self, "spatial_norm"):
            hidden = self.spatial_norm(x, condition).flatten(2).transpose(1, 2)
        else:
            hidden = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        if hasattr(self, "add_k_proj"):
            key = torch.cat([self.add_k_proj(condition), key], dim=1)
            value = torch.cat([self.add_v_proj(condition), value], dim=1)
        query, key, value = (self._by_head(part) for part in (query, key, value))
        found = scaled_dot_product_attention(query, key, value)
        found = self.to_out[0](found.transpose(1, 2).flatten(2))
        return found.transpose(1, 2).reshape(x.shape) + x

    def _by_head(self, x: Tensor) -> Tensor:
        """`[n, T, channels]` as `[n, heads, T, …]`."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)
