"""The block of a modality: it writes what it knows into a latent of a shape that all blocks share.

Names and formulas are those of `tests/parity/mm_lego/README.md`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, selu

from fusemix_core.modules import Modules

TEMPERATURE = 0.5
"""Of the softmax of attention."""


class Attention(nn.Module):
    """Pre-norm attention of a sequence to itself, or to a context.

    Args:
        width: of the sequence.
        heads, head_width: how many heads, and how wide each is.
        context: the width of the context; None for self-attention.
    """

    def __init__(self, width: int, heads: int, head_width: int, context: int | None = None) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.head_width = heads, head_width
        self.norm = nn.LayerNorm(width)
        self.norm_context = None if context is None else nn.LayerNorm(context)
        self.q = nn.Linear(width, inner, bias=False)
        self.kv = nn.Linear(context or width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None):
        """`[n, s, width]`, without the residual.

        Args:
            x: `[n, s, width]`.
            context: `[n, t, context]`.
            mask: bool `[n, t]`, what is attended to; all if None.
        """
        x = self.norm(x)
        seen = x if self.norm_context is None else self.norm_context(context)
        k, v = self.kv(seen).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.q(x), k, v))
        weights = q @ k.transpose(-1, -2) / (self.head_width**0.5 * TEMPERATURE)
        if mask is not None:
            weights = weights.masked_fill(~mask[:, None, None], -torch.inf)
        found = weights.softmax(dim=-1) @ v
        return leaky_relu(self.out(found.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """A pre-norm gated layer, without the residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.fc1(self.norm(x)).chunk(2, dim=-1)
        return self.fc2(values * selu(gates))


class Layer(nn.Module):
    """One pass: the modality is transformed, and the latent reads it.

    Args:
        width: of the modality's tokens.
        latent_width: of the latent.
        heads, head_width: of attention.
    """

    def __init__(self, width: int, latent_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.mod_attn = Attention(width, heads, head_width)
        self.mod_ff = FeedForward(width)
        self.cross_attn = Attention(latent_width, heads, head_width, width)
        self.cross_ff = FeedForward(latent_width)

    def read(self, latent: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """The latent `[n, c, latent_width]` after it has read `x` `[n, t, width]`."""
        latent = self.cross_attn(latent, x, mask) + latent
        return self.cross_ff(latent) + latent


class Head(nn.Module):
    """Scores `[n, outputs]` of the mean of a latent's channels; of a complex one its real part."""

    def __init__(self, latent_width: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(latent_width), nn.Linear(latent_width, outputs)

    def forward(self, latent: Tensor) -> Tensor:
        return self.out(self.norm(real(latent).mean(dim=1)))


class Block(nn.Module):
    """Writes one modality into a latent, in the frequency domain of the latent's channels.

    Args:
        width: of the modality's tokens.
        outputs: scores of the block's own head.
        channels, latent_width: the latent's shape, that of all blocks.
        depth: passes.
        heads, head_width: of attention.
        frequency: whether latent and tokens go through an FFT. Without, the latent isn't
            normalised either, and stays real.
        imaginary: whether the latent's imaginary part goes on to the next pass.
        normalise: whether the latent is normalised before its FFT.
        own_layers: whether each pass has its own weights; if not, all but the first share theirs.

    Example:
        block = Block(768, 3, channels=64, latent_width=64, depth=2, heads=8, head_width=64)
        scores = block.head(block(torch.randn(5, 1, 768)))
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        *,
        channels: int,
        latent_width: int,
        depth: int,
        heads: int,
        head_width: int,
        frequency: bool = True,
        imaginary: bool = True,
        normalise: bool = True,
        own_layers: bool = True,
    ) -> None:
        super().__init__()
        self.depth, self.frequency = depth, frequency
        self.imaginary, self.normalise = imaginary, normalise
        self.latent = nn.Parameter(torch.randn(channels, latent_width))
        count = depth if own_layers else min(depth, 2)
        self.layers = Modules(Layer(width, latent_width, heads, head_width) for _ in range(count))
        self.head = Head(latent_width, outputs)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, latent: Tensor | None = None
    ) -> Tensor:
        """The latent `[n, channels, latent_width]`, complex with `frequency`.

        Args:
            x: tokens `[n, t, width]`.
            mask: bool `[n, t]`, True for a token, which come first. Each item has one or more.
            latent: real `[n, channels, latent_width]`, to begin with instead of the block's own.
        """
        if latent is None:
            latent = self.latent.expand(len(x), -1, -1)
        for number in range(self.depth):
            layer = self.layers[min(number, len(self.layers) - 1)]
            own = layer.mod_ff(x) + x
            if not self.frequency:
                latent = layer.read(latent, own, mask)
                continue
            if self.normalise:
                latent = latent / latent.norm(dim=1, keepdim=True).clamp_min(1e-12)
            spectrum = torch.fft.fft(latent, dim=1)
            found = layer.read(spectrum.real, real_spectrum(own, mask), mask)
            whole = torch.complex(found, spectrum.imag)
            if number == self.depth - 1:
                return whole
            latent = torch.fft.ifft(whole if self.imaginary else found, dim=1)
        return latent


def real(latent: Tensor) -> Tensor:
    """The real part of a latent that may be complex."""
    return latent.real if latent.is_complex() else latent


def real_spectrum(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The real part of the FFT over the tokens of each item `[n, t, width]`, 0 for padding."""
    if mask is None or bool(mask.all()):
        return torch.fft.fft(x, dim=1).real
    lengths = mask.sum(dim=1)
    found = torch.zeros_like(x)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        found[rows, :length] = torch.fft.fft(x[rows, :length], dim=1).real
    return found
