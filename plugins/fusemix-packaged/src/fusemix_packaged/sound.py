"""aiSFX (Ma and Lerch, ISMIR 2022): a CNN over log-mel blocks of sound effects, written anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec

SAMPLE_RATE = 44_100
WINDOW, HOP, MELS = 2048, 1024, 96
BLOCK, BLOCK_HOP = 100, 50
"""Frames: 2.3 s, every 1.2 s."""
LARGEST = 9.457798957824707
"""The largest value of the training spectrograms, by which all are divided."""
WIDTHS = (64, 128, 256, 512)


class Stage(nn.Module):
    """Two convolutions with batch norm, then the maximum over `pool` frames and bands."""

    def __init__(self, width_in: int, width: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = relu(self.bn2(self.conv2(x)))
        return max_pool2d(x, self.pool) if self.pool > 1 else x


class Network(nn.Module):
    """Blocks `[n, frames, bands]` → `[n, 512]`: the mean over bands, then the maximum over time."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        for number, width in enumerate(widths, 1):
            before = widths[number - 2] if number > 1 else 1
            pool = 2 if number < len(widths) else 1
            self.add_module(f"conv_block{number}", Stage(before, width, pool))

    def forward(self, blocks: Tensor) -> Tensor:
        x = blocks[:, None]
        for stage in self.children():
            x = stage(x)
        return x.mean(dim=3).amax(dim=2)


class AiSfx(Encoder):
    """Sounds at 44.1 kHz; the latent is the mean over blocks of 2.3 s that overlap by half.

    A clip is brought to full scale first. A shorter one is filled with silence; what is left after
    the last whole block is not heard, as in the original. View `time` has the blocks.
    """

    def __init__(
        self, spec: EncoderSpec, network: Network, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec = spec
        self.device, self.dtype = device, dtype
        self.model = network.requires_grad_(False).eval().to(device, dtype)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged weights, or with `aisfx@PATH` the user's, in the same form.

        Raises:
            ArtefactError: weights that are missing, changed or do not fit.
        """
        path = Path(spec.weights) if spec.local else packaged_weights(spec)
        with torch.device("meta"):
            network = Network()
        try:
            network.load_state_dict(_read(path), assign=True)
        except Exception as error:  # unreadable, unsafe, or of another network
            raise ArtefactError(f"{path} does not contain aiSFX's weights: {error}") from error
        return cls(spec, network, device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A narrow network with random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            network = Network((4, 4, 8, 16))
        spec = replace(spec, dim=16, weights="", sha256="", revision="", parameters=None)
        return cls(spec, network, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[Audio]) -> list[Tensor]:
        """float32 `[blocks, 100, 96]` of each clip."""
        for item in items:
            if not isinstance(item, Audio):
                raise TypeError(f"{self.spec.name} takes Audio, not {type(item).__name__}")
            if item.rate != SAMPLE_RATE:
                raise ValueError(f"{self.spec.name} takes {SAMPLE_RATE} Hz, not {item.rate}")
        return [blocks_of(spectrogram(item.samples)) for item in items]

    @torch.inference_mode()
    def encode(self, batch: list[Tensor], view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, 512]`; `time [n, blocks, 512]`, `Padded`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        width = self.spec.dim or WIDTHS[-1]
        clips = [self.model(blocks.to(self.device, self.dtype)).float() for blocks in batch]
        if view == "time":
            if clips:
                return Padded.of(clips)
            return Padded(torch.empty(0, 0, width), torch.empty(0, 0, dtype=torch.bool))
        return torch.stack([rows.mean(0) for rows in clips]) if clips else torch.empty(0, width)


def spectrogram(samples: np.ndarray) -> Tensor:
    """float32 `[frames, 96]`: log10(1 + 10,000 × mel power) by the training set's largest value.

    Hann windows of 2,048 samples, every 1,024, with zeros around the clip; HTK's mel scale with
    bands that add up to 1.
    """
    wave = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    wave = wave / (wave.abs().max() if len(wave) and wave.any() else 1)
    wave = pad(wave, (WINDOW // 2, WINDOW // 2))
    frames = torch.stft(
        wave, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True
    )
    power = frames.abs().square()
    return torch.log10(1 + 10_000 * (mel_bands() @ power)).T / LARGEST


@cache
def mel_bands() -> Tensor:
    """float32 `[96, 1025]`: triangles on HTK's mel scale up to 22,050 Hz, each adding up to 1."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    bands = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy((bands / bands.sum(axis=1, keepdims=True)).astype(np.float32))


def blocks_of(frames: Tensor) -> Tensor:
    """`[blocks, 100, 96]` of frames `[T, 96]`: whole blocks only, but at least one."""
    if len(frames) < BLOCK:
        frames = pad(frames, (0, 0, 0, BLOCK - len(frames)))
    return frames.unfold(0, BLOCK, BLOCK_HOP).transpose(1, 2).contiguous()


def _read(path: Path) -> dict[str, Any]:
    """The tensors of the embedding network. Beside them the file has counts of classes, which are
    numpy numbers: these are allowed, and no other object."""
    kinds = {type(np.dtype(kind)) for kind in (np.int64, np.int32, np.float64)}
    scalar = (multiarray.scalar, "numpy.core.multiarray.scalar")
    with torch.serialization.safe_globals([scalar, np.dtype, *kinds]):
        state, _ = torch.load(path, map_location="cpu", weights_only=True)
    prefix = "embedding_net."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
