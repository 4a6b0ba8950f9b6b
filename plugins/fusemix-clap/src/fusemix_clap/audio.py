"""`ClapAudioEncoder`: the audio tower of a CLAP model, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from fusemix_hf.loading import frozen, load_model, load_processor
from torch import Tensor
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapConfig,
    ClapFeatureExtractor,
)
from transformers.audio_utils import spectrogram, window_function

from fusemix_clap.sound import Heard, Sounds, embed, gather, heard_fused, samples_of, windows
from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec


class ClapAudioEncoder(Encoder):
    """Sounds at 48 kHz, projected to the space that they share with texts, unit norm.

    Clips of up to 10 s are repeated and padded, as CLAP was trained. Of longer ones transformers
    takes a random part; here nothing is random. A model without feature fusion hears all of the
    clip in windows of 10 s, and their unit embeddings are averaged, each weighted by its sound. A
    model with fusion hears it shrunk to 10 s, and three crops from fixed places: see `fuse`.
    """

    def __init__(self, spec: EncoderSpec, model: Any, features: Any, device: torch.device) -> None:
        self.spec = spec
        self.features = features
        self.fusion: bool = features.truncation == "fusion"
        self.size: int = features.nb_max_samples
        self.device = device
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.dim: int = model.config.projection_dim
        self.model = frozen(model, device)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The audio tower of the CLAP model at the hub id or folder `spec.weights`.

        Raises ArtefactError if it can't be had or does not fit.
        """
        config = read_config(spec)
        features = load_processor(ClapFeatureExtractor, spec)
        audio: Any = config.audio_config
        if (features.truncation == "fusion") != audio.enable_fusion:
            raise ArtefactError(
                f"The model in {spec.weights} has enable_fusion="
                f"{audio.enable_fusion}; its preprocessor_config.json says "
                f"truncation={features.truncation!r}.",
                "These files belong to two models.",
            )
        with torch.random.fork_rng(devices=[]):
            model = load_model(ClapAudioModelWithProjection, spec, dtype)
        return cls(spec, model, features, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random Swin of four small blocks, for windows of 1 s."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = ClapAudioModelWithProjection(ClapAudioConfig(**TINY))
        spec = replace(spec, dim=TINY["projection_dim"], weights="", sha256="", revision="")
        features = ClapFeatureExtractor(truncation="rand_trunc", max_length_s=1)
        return cls(spec, model, features, torch.device("cpu"))

    def collate(self, items: Sequence[Audio]) -> Sounds:
        """Clips at 48 kHz as log-mel inputs of 10 s."""
        clips = [self._heard(samples_of(item, self.spec)) for item in items]
        return gather(clips, self._shape())

    @torch.inference_mode()
    def encode(self, batch: Sounds, view: str = "pooled") -> Tensor:
        """float32 `[n, d]` on the CPU, unit norm."""
        if view != "pooled":
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        return embed(batch, self.dim, self._tower)

    def _tower(self, mel: Tensor, longer: Tensor) -> Tensor:
        features = mel.to(self.device, self.dtype)
        output = self.model(input_features=features, is_longer=longer.to(self.device))
        return output.audio_embeds

    def _heard(self, samples: np.ndarray) -> list[Heard]:
        if self.fusion:
            hop = self.features.hop_length
            return [heard_fused(samples, self.size, hop, self._fusion_mel)]
        return [Heard(self._window_mel(w), len(w)) for w in windows(samples, self.size)]

    def _shape(self) -> tuple[int, ...]:
        """Of one input."""
        frames = self.size // self.features.hop_length + 1
        return (4 if self.fusion else 1, frames, self.features.feature_size)

    def _window_mel(self, window: np.ndarray) -> Tensor:
        """`[1, t, m]` of at most 10 s, by the extractor, which draws no random number for these."""
        rate = self.features.sampling_rate
        mel = self.features(window, sampling_rate=rate, return_tensors="pt")
        return mel["input_features"][0]

    def _fusion_mel(self, samples: np.ndarray) -> Tensor:
        """`[t, m]` of any length, as the extractor makes it of a clip to be fused.

        Not by the extractor, which with fusion always draws from numpy's global generator.
        """
        mel = spectrogram(
            samples,
            window_function(self.features.fft_window_size, "hann"),
            frame_length=self.features.fft_window_size,
            hop_length=self.features.hop_length,
            power=2.0,
            mel_filters=self.features.mel_filters,
            log_mel="dB",
        )
        return torch.from_numpy(np.ascontiguousarray(mel.T))


TINY: dict[str, Any] = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 64,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "projection_dim": 32,
}


def read_config(spec: EncoderSpec) -> ClapConfig:
    """The config at `spec.weights`; raises ArtefactError if it is another model's or width's."""
    config = load_processor(ClapConfig, spec)
    if config.model_type != "clap":
        raise ArtefactError(
            f"{spec.weights} contains a model of type {config.model_type}, not CLAP.",
            "An original checkpoint of LAION's is loaded as laion-clap@FILE.pt",
        )
    if config.projection_dim != spec.dim:
        raise ArtefactError(
            f"The model in {spec.weights} projects to {config.projection_dim} dimensions; "
            f"{spec.name} to {spec.dim}.",
            "These weights belong to another model.",
        )
    return config
