"""The decoder of a `VQModel`: latents → an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from fusemix_diffusers.light.layers import Attention, Residual, SpatialNorm

DEFAULTS: Mapping[str, Any] = {
    "out_channels": 3,
    "latent_channels": 3,
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "norm_type": "group",
    "vq_embed_dim": None,
    "mid_block_add_attention": True,
    "block_out_channels": (64,),
    "up_block_types": ("UpDecoderBlock2D",),
}
"""diffusers' defaults of the settings that a config may leave out."""

PARTS = ("decoder.", "post_quant_conv.")
"""How the names of the tensors begin that decoding needs."""


class Movq(nn.Module):
    """A `VQModel` that only decodes, without looking latents up in its codebook.

    Args:
        config: what `movq/config.json` contains; see `supported.movq_fault`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        c = {**DEFAULTS, **config}
        width = c["vq_embed_dim"] or c["latent_channels"]
        self.spatial = c["norm_type"] == "spatial"
        self.scale = 2 ** (len(c["block_out_channels"]) - 1)
        self.post_quant_conv = nn.Conv2d(width, c["latent_channels"], 1)
        self.decoder = _Decoder(c)

    def forward(self, latents: Tensor) -> Tensor:
        """`[n, 3, scale · h, scale · w]`, from about -1 to 1, of latents `[n, c, h, w]`."""
        return self.decoder(self.post_quant_conv(latents), latents if self.spatial else None)


class _Decoder(nn.Module):
    def __init__(self, c: Mapping[str, Any]) -> None:
        super().__init__()
        widths = list(reversed(c["block_out_channels"]))
        groups = c["norm_num_groups"]
        latents = c["latent_channels"] if c["norm_type"] == "spatial" else 0

        def residual(channels: int, out: int) -> Residual:
            return Residual(channels, out, groups, 1e-6, latents=latents)

        def attention(channels: int) -> Attention:
            return Attention(channels, 1, groups, 1e-6, latents=latents)

        self.conv_in = nn.Conv2d(c["latent_channels"], widths[0], 3, padding=1)
        self.mid_block = _Part()
        self.mid_block.resnets.extend(residual(widths[0], widths[0]) for _ in range(2))
        if c["mid_block_add_attention"]:
            self.mid_block.attentions.append(attention(widths[0]))
        self.up_blocks: Any = nn.ModuleList()
        channels = widths[0]
        for i, (kind, width) in enumerate(zip(c["up_block_types"], widths, strict=True)):
            block = _Part()
            for _ in range(c["layers_per_block"] + 1):
                block.resnets.append(residual(channels, width))
                if kind == "AttnUpDecoderBlock2D":
                    block.attentions.append(attention(width))
                channels = width
            if i < len(widths) - 1:
                block.upsamplers = nn.ModuleList([_Double(width)])
            self.up_blocks.append(block)
        self.conv_norm_out = (
            SpatialNorm(channels, latents) if latents else nn.GroupNorm(groups, channels, eps=1e-6)
        )
        self.conv_out = nn.Conv2d(channels, c["out_channels"], 3, padding=1)

    def forward(self, x: Tensor, latents: Tensor | None) -> Tensor:
        x = self.conv_in(x)
        for block in (self.mid_block, *self.up_blocks):
            for i, layer in enumerate(block.resnets):
                x = layer(x, latents)
                if i < len(block.attentions):
                    x = block.attentions[i](x, latents)
            for double in getattr(block, "upsamplers", ()):
                x = double(x)
        x = self.conv_norm_out(x) if latents is None else self.conv_norm_out(x, latents)
        return self.conv_out(silu(x))


class _Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resnets: Any = nn.ModuleList()
        self.attentions: Any = nn.ModuleList()


class _Double(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
