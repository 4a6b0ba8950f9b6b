"""Whisper's encoder through CTranslate2 (Radford et al., arXiv:2212.04356)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ctranslate2
import numpy as np
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from fusemix_core.data.media import Audio
from fusemix_core.digests import path_sha256
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec

SAMPLE_RATE = 16_000
WINDOW = 30 * SAMPLE_RATE
FRAME = 320
"""Samples (20 ms) behind one frame of the encoder's output: hop 160, then a stride of 2."""
WINDOWS_AT_ONCE = 8
"""Bounds the memory: a window's frames are 2.3 MB in float32."""


@dataclass(frozen=True)
class Windows:
    """The 30 s windows of a batch of clips.

    mel: float32 `[w, 80, 3000]`; frames: int64 `[w]`, how many of a window's 1,500 frames hold
    sound; clip: int64 `[w]`, whose window it is; clips: how many clips there are.
    """

    mel: np.ndarray
    frames: np.ndarray
    clip: np.ndarray
    clips: int


class WhisperEncoder(Encoder):
    """Speech through Whisper's encoder; the latent is the mean over the frames that contain sound.

    A clip of more than 30 s is cut into windows, each weighted by its frames.
    """

    def __init__(self, spec: EncoderSpec, folder: Path, model: Any) -> None:
        self.spec = spec
        self.folder = folder
        self.model = model
        self.features = WhisperFeatureExtractor(feature_size=model.n_mels)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged model, or with `NAME@PATH` the CTranslate2 folder of the user's."""
        folder = Path(spec.weights) if spec.local else packaged_weights(spec).parent
        compute = str(dtype).removeprefix("torch.")
        try:
            model = ctranslate2.models.Whisper(
                str(folder),
                device="cuda" if device.type == "cuda" else "cpu",
                device_index=device.index or 0,
                compute_type=compute,
                intra_threads=torch.get_num_threads(),
            )
        except ValueError as error:
            raise ConfigError(
                f"{spec.name} can't run in {compute} on {device}: {error}", "Use --dtype float32."
            ) from error
        except RuntimeError as error:
            raise ArtefactError(
                f"{folder} can't be loaded as a Whisper model of CTranslate2: {error}",
                "Convert one with ct2-transformers-converter.",
            ) from error
        return cls(spec, folder, model)

    def collate(self, items: Sequence[Audio]) -> Windows:
        """Clips at 16 kHz as log-mel windows, by Whisper's own feature extractor."""
        windows, frames, clip = [], [], []
        for i, item in enumerate(items):
            for window in _windows(self._samples(item)):
                windows.append(window)
                frames.append(max(1, math.ceil(len(window) / FRAME)))
                clip.append(i)
        if windows:
            mel = self.features(windows, sampling_rate=SAMPLE_RATE, return_tensors="np")
            values = mel["input_features"].astype(np.float32, copy=False)
        else:
            values = np.empty((0, self.features.feature_size, 3000), np.float32)
        return Windows(values, np.array(frames, np.int64), np.array(clip, np.int64), len(items))

    def encode(self, batch: Windows, view: str = "pooled") -> Tensor:
        """float32 `[n, 384]` on the CPU."""
        if view != "pooled":
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        frames = torch.from_numpy(batch.frames)
        sums = [self._sums(batch, at) for at in range(0, len(frames), WINDOWS_AT_ONCE)]
        if not sums:
            return torch.empty(0, self.spec.dim or 0)
        clip = torch.from_numpy(batch.clip)
        total = torch.zeros(batch.clips, sums[0].shape[1], dtype=torch.float64)
        total.index_add_(0, clip, torch.cat(sums))
        count = torch.zeros(batch.clips, dtype=torch.int64).index_add_(0, clip, frames)
        return (total / count[:, None]).float()

    @property
    def weights_digest(self) -> str:
        """The digest of the model's folder; its weights are not torch's."""
        return path_sha256(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "model"}

    def _samples(self, item: Audio) -> np.ndarray:
        if not isinstance(item, Audio):
            raise TypeError(f"{self.spec.name} takes Audio, not {type(item).__name__}")
        if item.rate != SAMPLE_RATE:
            raise ValueError(f"{self.spec.name} takes {SAMPLE_RATE} Hz, not {item.rate}")
        return item.samples

    def _sums(self, batch: Windows, at: int) -> Tensor:
        """float64 `[w, d]`: the sum over the frames with sound, of the windows from `at` on."""
        rows = slice(at, at + WINDOWS_AT_ONCE)
        mel = ctranslate2.StorageView.from_array(np.ascontiguousarray(batch.mel[rows]))
        output = self.model.encode(mel, to_cpu=True).to(ctranslate2.DataType.float32)
        latents = torch.from_numpy(np.array(output)).double()
        position = torch.arange(latents.shape[1])
        sound = position < torch.from_numpy(batch.frames[rows])[:, None]
        return (latents * sound[:, :, None]).sum(dim=1)


def _windows(samples: np.ndarray) -> list[np.ndarray]:
    """The clip in pieces of 30 s, the last one shorter; a clip without samples has one window."""
    return [samples[at : at + WINDOW] for at in range(0, max(len(samples), 1), WINDOW)]
