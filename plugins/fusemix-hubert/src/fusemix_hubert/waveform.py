"""HuBERT, wav2vec 2.0 and WavLM: transformers over a convolutional encoder of the waveform."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from fusemix_hf.loading import load_model, load_processor
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from fusemix_core.errors import ArtefactError
from fusemix_core.specs import EncoderSpec
from fusemix_hubert.speech import Group, SpeechEncoder, read_config

KINDS: dict[str, tuple[Any, Any]] = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
}
WINDOW_SECONDS = 30
SECONDS_AT_ONCE = 64
"""Sound, padding included, that goes through the model together: bounds the memory. The first
convolution makes 400 bytes of each sample."""


class WaveformEncoder(SpeechEncoder):
    """Speech through the model of type `spec.options["model"]`.

    Models whose convolutions are normalised over time (`feat_extract_norm="group"`: the base ones
    and wav2vec2-large) were trained without an attention mask, and any padding would change every
    frame; so only windows of one length go through them together. The others take windows of like
    lengths, padding masked.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: PreTrainedModel,
        features: Wav2Vec2FeatureExtractor,
        device: torch.device,
    ) -> None:
        super().__init__(spec, model, features, device)
        config = model.config
        self.convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.masked: bool = config.feat_extract_norm == "layer"
        self.window = WINDOW_SECONDS * features.sampling_rate
        self.at_once = SECONDS_AT_ONCE * features.sampling_rate
        self.least = 1
        for kernel, stride in reversed(self.convolutions):
            self.least = (self.least - 1) * stride + kernel

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model at the hub id or folder `spec.weights`.

        Raises ArtefactError if it can't be had or is another one.
        """
        read_config(spec)
        _, kind = KINDS[spec.options["model"]]
        features = load_processor(Wav2Vec2FeatureExtractor, spec)
        with torch.random.fork_rng(devices=[]):
            model = load_model(kind, spec, dtype, unused=["masked_spec_embed"])
        if getattr(model.config, "add_adapter", False):
            raise ArtefactError(
                f"The model in {spec.weights} shortens its frames by an adapter of its own.",
                f"Take it as it is: hf:{spec.weights}",
            )
        # Used in training alone; where the file lacks it, it would be made up.
        model.register_parameter("masked_spec_embed", None)
        return cls(spec, model, features, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """Two random blocks, 32 wide."""
        config, kind = KINDS[spec.options["model"]]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = kind(config(**TINY))
        spec = replace(spec, dim=TINY["hidden_size"], weights="", sha256="", revision="")
        return cls(spec, model, Wav2Vec2FeatureExtractor(), torch.device("cpu"))

    def _groups(self, windows: Sequence[np.ndarray]) -> list[Group]:
        lengths = [len(w) for w in windows]
        alike = like_lengths(lengths) if self.masked else equal_lengths(lengths)
        parts = (part for rows in alike for part in in_parts(rows, lengths, self.at_once))
        return [self._group(windows, rows) for rows in parts]

    def _group(self, windows: Sequence[np.ndarray], rows: list[int]) -> Group:
        inputs = self.features(
            [windows[i] for i in rows],
            sampling_rate=self.features.sampling_rate,
            padding=True,
            return_attention_mask=self.masked,
            return_tensors="pt",
        )
        return Group(
            inputs["input_values"].float(),
            inputs["attention_mask"].long() if self.masked else None,
            torch.tensor([self._frames(len(windows[i])) for i in rows]),
            torch.tensor(rows),
        )

    def _frames(self, samples: int) -> int:
        """Frames that the convolutions make of a window."""
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return samples


TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def equal_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """The rows in groups of one length each."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        groups[length].append(row)
    return list(groups.values())


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """The rows, longest first, in groups where none is shorter than 3/4 of the longest."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not groups or 4 * lengths[row] < 3 * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return groups


def in_parts(rows: list[int], lengths: Sequence[int], samples: int) -> Iterator[list[int]]:
    """The rows, longest first, in parts that padded hold at most `samples`, or one row."""
    size = max(1, samples // lengths[rows[0]])
    for at in range(0, len(rows), size):
        yield rows[at : at + size]
