"""Whisper's encoder; its decoder is not loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from fusemix_hf.loading import load_model, load_processor
from transformers import PreTrainedModel, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperTransformer

from fusemix_core.errors import ArtefactError
from fusemix_core.specs import EncoderSpec
from fusemix_hubert.speech import Group, SpeechEncoder, read_config

WINDOWS_AT_ONCE = 8
"""Bounds the memory."""
TINY_SECONDS = 2


class WhisperEncoder(SpeechEncoder):
    """Speech through Whisper's encoder, which always takes 30 s: shorter windows are filled with
    silence, whose frames are left out of all views."""

    def __init__(
        self,
        spec: EncoderSpec,
        model: PreTrainedModel,
        features: WhisperFeatureExtractor,
        device: torch.device,
    ) -> None:
        super().__init__(spec, model, features, device)
        self.window = features.n_samples
        self.least = 1  # Whisper hears 30 s, however short the clip
        self.frame = features.n_samples // model.config.max_source_positions

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The encoder of the whole model at the hub id or folder `spec.weights`.

        Raises ArtefactError if it can't be had or is another one.
        """
        config = read_config(spec)
        features = load_processor(WhisperFeatureExtractor, spec)
        if features.feature_size != config.num_mel_bins:
            raise ArtefactError(
                f"The model in {spec.weights} takes {config.num_mel_bins} mel bands; its "
                f"preprocessor_config.json says {features.feature_size}.",
                "These files belong to two models.",
            )
        with torch.random.fork_rng(devices=[]):
            model = load_model(
                WhisperTransformer, spec, dtype, key_mapping={r"^(model\.)?encoder\.": ""}
            )
        return cls(spec, model, features, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """Two random blocks, 32 wide, for windows of 2 s."""
        features = WhisperFeatureExtractor(chunk_length=TINY_SECONDS)
        config = WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=64,
            max_source_positions=50 * TINY_SECONDS,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = WhisperTransformer(config)
        spec = replace(spec, dim=config.d_model, weights="", sha256="", revision="")
        return cls(spec, model, features, torch.device("cpu"))

    def _groups(self, windows: Sequence[np.ndarray]) -> list[Group]:
        groups = []
        for at in range(0, len(windows), WINDOWS_AT_ONCE):
            part = list(windows[at : at + WINDOWS_AT_ONCE])
            mel = self.features(
                part, sampling_rate=self.features.sampling_rate, return_tensors="pt"
            )
            frames = [-(-len(window) // self.frame) for window in part]
            rows = torch.arange(at, at + len(part))
            groups.append(Group(mel["input_features"].float(), None, torch.tensor(frames), rows))
        return groups
