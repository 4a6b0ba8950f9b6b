"""What CLAP's audio towers hear of a clip: windows of 10 s, or one fused input; none is random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fusemix_core.data.media import Audio
from fusemix_core.specs import EncoderSpec

INPUTS_AT_ONCE = 16
"""Inputs of 10 s that go through a model together: bounds the memory."""

_MARGIN = 2
_FRAMES = 6_000


@dataclass(frozen=True)
class Sounds:
    """A batch of clips as inputs of 10 s.

    values: float32 `[w, …]`, one row an input; longer: bool `[w, 1]`, whether it is fused from a
    longer clip; clip: int64 `[w]`, whose input it is; samples: int64 `[w]`, how much sound it
    stands for; clips: how many clips there are.
    """

    values: Tensor
    longer: Tensor
    clip: Tensor
    samples: Tensor
    clips: int


@dataclass(frozen=True)
class Heard:
    """One input: its values, how many samples it stands for, whether it is fused."""

    values: Tensor
    samples: int
    longer: bool = False


def gather(clips: Sequence[Sequence[Heard]], shape: tuple[int, ...]) -> Sounds:
    """The inputs of all clips as one batch; `shape` is that of one input."""
    flat = [(i, heard) for i, clip in enumerate(clips) for heard in clip]
    values = [heard.values.float() for _, heard in flat]
    return Sounds(
        torch.stack(values) if values else torch.empty(0, *shape),
        torch.tensor([[heard.longer] for _, heard in flat], dtype=torch.bool).reshape(-1, 1),
        torch.tensor([i for i, _ in flat], dtype=torch.int64),
        torch.tensor([heard.samples for _, heard in flat], dtype=torch.int64),
        len(clips),
    )


def embed(batch: Sounds, dim: int, tower: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """float32 `[n, dim]`, unit norm: of a clip of several inputs the mean of their unit embeddings,
    weighted by the sound in each. `tower(values, longer)` embeds some inputs."""
    total = torch.zeros(batch.clips, dim, dtype=torch.float64)
    for at in range(0, len(batch.values), INPUTS_AT_ONCE):
        rows = slice(at, at + INPUTS_AT_ONCE)
        latents = tower(batch.values[rows], batch.longer[rows]).float()
        weighted = functional.normalize(latents, dim=-1).cpu().double()
        total.index_add_(0, batch.clip[rows], weighted * batch.samples[rows, None])
    return functional.normalize(total, dim=-1).float()


def samples_of(item: Audio, spec: EncoderSpec) -> np.ndarray:
    """The clip's samples, at least one; TypeError or ValueError for what is not such a clip."""
    if not isinstance(item, Audio):
        raise TypeError(f"{spec.name} takes Audio, not {type(item).__name__}")
    if item.rate != spec.sample_rate:
        raise ValueError(f"{spec.name} takes {spec.sample_rate} Hz, not {item.rate} Hz")
    return item.samples if len(item.samples) else np.zeros(1, np.float32)


def windows(samples: np.ndarray, size: int) -> list[np.ndarray]:
    """The clip in windows of `size` samples, the last one shorter."""
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def repeat_pad(samples: np.ndarray, size: int) -> np.ndarray:
    """A clip of at most `size` samples, repeated as often as it fits, silence behind it."""
    repeated = np.tile(samples, size // len(samples))
    return np.pad(repeated, (0, size - len(repeated)))


def long_mel(samples: np.ndarray, hop: int, mel_of: Callable[[np.ndarray], Tensor]) -> Tensor:
    """`mel_of(samples)` `[t, m]`, a frame each `hop` samples and centred there, made in pieces: the
    Fourier transform of an hour would take gigabytes. A frame reaches over less than two hops."""
    total = len(samples) // hop + 1
    pieces = []
    for first in range(0, total, _FRAMES):
        end = min(first + _FRAMES, total)
        start = max(first - _MARGIN, 0)
        stop = len(samples) if end == total else (end + _MARGIN) * hop
        pieces.append(mel_of(samples[start * hop : stop])[first - start : end - start])
    return torch.cat(pieces)


def fuse(mel: Tensor, frames: int) -> Tensor:
    """`[4, frames, m]` of a mel `[t, m]`, t > frames: all of it shrunk, and three crops.

    CLAP takes the crops at random, one in each third of where a crop can begin; here each is from
    the middle of its third.
    """
    thirds = np.array_split(np.arange(len(mel) - frames + 1), 3)
    starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
    size = (frames, mel.shape[1])
    shrunk = functional.interpolate(mel[None, None], size, mode="bilinear", align_corners=False)
    return torch.stack([shrunk[0, 0], *(mel[at : at + frames] for at in starts)])


def heard_fused(
    samples: np.ndarray, size: int, hop: int, mel_of: Callable[[np.ndarray], Tensor]
) -> Heard:
    """One fused input `[4, size // hop + 1, m]` of a clip of any length."""
    frames = size // hop + 1
    if len(samples) <= size:
        return Heard(mel_of(repeat_pad(samples, size)).expand(4, -1, -1), len(samples))
    mel = long_mel(samples, hop, mel_of)
    if len(mel) == frames:
        return Heard(mel.expand(4, -1, -1), len(samples))
    return Heard(fuse(mel, frames), len(samples), longer=True)
