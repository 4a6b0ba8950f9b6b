"""`AudioEncoder`: sounds through any transformers model that reads a waveform or a spectrogram.

A clip is one input. Long ones in windows, and many lengths at full speed, are fusemix-hubert's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor

from fusemix_core.data.media import Audio
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded, cat_latents
from fusemix_core.specs import EncoderSpec
from fusemix_hf.base import HfEncoder, blocks, masked_mean, padded
from fusemix_hf.loading import load_processor
from fusemix_hf.resolving import TIMED, WAVES

Group = tuple[Tensor, dict[str, Tensor]]
"""Rows int64 `[g]` of a batch, and the model's inputs for these."""


class AudioEncoder(HfEncoder):
    """Sounds; the latent is the mean of the last hidden states over the frames that contain sound,
    or for a model that has no such frames what it gives as `pooler_output`, else the mean of all.

    Views of a model that follows the sound in time: `time`, its frames; `layers`, their mean after
    each block. Clips are cut at what the feature extractor takes; a clip too short for one frame
    is padded with silence.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, extractor = self.config, self.processor
        self.timed = config.model_type in TIMED and not self.spec.options
        self.waves = config.model_type in WAVES
        # A model normalised over time, or trained without a mask, must see no padding at all.
        self.masked = (
            getattr(config, "feat_extract_norm", "") == "layer" and extractor.return_attention_mask
        )
        self.least = _samples_of_a_frame(config) if self.waves else 1
        limits = (getattr(extractor, n, None) for n in ("nb_max_samples", "n_samples"))
        self.most: int | None = next((int(n) for n in limits if n), None)

    @classmethod
    def load_processor(cls, spec: EncoderSpec) -> Any:
        """The feature extractor."""
        extractor = load_processor(AutoFeatureExtractor, spec)
        if getattr(extractor, "truncation", "") == "fusion":
            raise ConfigError(
                f"The feature extractor of {spec.name} fuses random pieces of a clip.",
                "fusemix-clap reads such models the same way each time.",
            )
        return extractor

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random HuBERT of two layers."""
        from fusemix_hf.tiny import WIDTH, tiny_audio

        views = ("pooled", "time", "layers")
        spec = replace(spec, dim=WIDTH, views=views, options={}, sample_rate=16_000)
        spec = replace(spec, weights="", sha256="", revision="")
        return cls(spec, *tiny_audio(), torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[Audio]) -> list[Group]:
        """Clips by the model's own feature extractor, in groups that may be padded together.

        Raises ValueError for a clip at another sample rate.
        """
        clips = [self._samples(item) for item in items]
        groups: dict[int, list[int]] = defaultdict(list)
        for row, clip in enumerate(clips):
            groups[len(clip) if self.waves and not self.masked else 0].append(row)
        return [
            (torch.tensor(rows), self._extracted([clips[row] for row in rows]))
            for rows in groups.values()
        ]

    def truncated(self, items: Sequence[Audio]) -> int:
        """How many clips are longer than the feature extractor takes."""
        self.check(items, Audio, "Audio")
        return sum(self.most is not None and len(item.samples) > self.most for item in items)

    def blank(self) -> Audio:
        rate = self.processor.sampling_rate
        return Audio(np.zeros(rate, np.float32), rate)

    def give(self, batch: list[Group], view: str) -> Tensor | Padded:
        parts = [self._given(inputs, view) for _, inputs in batch]
        order = torch.cat([rows for rows, _ in batch]).argsort().to(self.device)
        return cat_latents(parts)[order]

    def _given(self, inputs: dict[str, Tensor], view: str) -> Tensor | Padded:
        if self.spec.options.get("tower"):
            return self.features(inputs)
        output = self.run(inputs, output_hidden_states=view == "layers")
        last = output.last_hidden_state
        if not self.timed:
            pooler = getattr(output, "pooler_output", None)
            if pooler is not None and self.pooler:
                return pooler.flatten(1).float()
            return last.float().mean(dim=(2, 3) if last.ndim == 4 else 1)
        mask = self._frames(inputs["attention_mask"].to(self.device), last.shape[1])
        if view == "time":
            return padded(last, mask)
        if view == "layers":
            return torch.stack([masked_mean(h, mask) for h in blocks(output)], dim=1)
        return masked_mean(last, mask)

    def _frames(self, mask: Tensor, frames: int) -> Tensor:
        """bool `[g, frames]`: which frames of the output hold sound, of a mask of the input."""
        model: Any = self.model
        if hasattr(model, "_get_feature_vector_attention_mask"):
            return model._get_feature_vector_attention_mask(frames, mask).bool()
        found = mask[:, :: mask.shape[1] // frames].bool()
        found[:, 0] = True  # a clip without samples
        return found

    def _extracted(self, clips: list[np.ndarray]) -> dict[str, Tensor]:
        options: dict[str, Any] = {"padding": True} if self.waves else {}
        if self.timed:
            options["return_attention_mask"] = True
        rate = self.processor.sampling_rate
        found = self.processor(clips, sampling_rate=rate, return_tensors="pt", **options)
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def _samples(self, item: Audio) -> np.ndarray:
        self.check([item], Audio, "Audio")
        rate = self.processor.sampling_rate
        if item.rate != rate:
            raise ValueError(f"{self.spec.name} takes {rate} Hz, not {item.rate} Hz")
        samples = item.samples[: self.most]
        return np.pad(samples, (0, max(0, self.least - len(samples))))


def _samples_of_a_frame(config: Any) -> int:
    """Samples that the convolutions need for one frame."""
    samples = 1
    for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
