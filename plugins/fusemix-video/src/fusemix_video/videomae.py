"""`VideoMAEEncoder`: VideoMAE through transformers (Tong et al., arXiv:2203.12602)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from fusemix_hf.loading import frozen, load_model, load_processor
from torch import Tensor, nn
from transformers import (
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessorPil,
    VideoMAEModel,
)

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec
from fusemix_video.decoding import Video
from fusemix_video.samples import sample_videos
from fusemix_video.sampling import Sampling


class VideoMAEEncoder(Encoder):
    """Video files; 16 frames, evenly spread, at once. `pooled` is the mean of the tokens.

    A fine-tuned checkpoint then has a norm, `fc_norm`, as its classifier has. `tokens` are in order
    of time, then row, then column: 8 pairs of frames of 14 × 14.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: VideoMAEModel,
        norm: nn.Module,
        processor: VideoMAEImageProcessorPil,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.device, self.dtype = device, model.dtype
        self.model, self.norm = frozen(model, device), frozen(norm, device)
        self.processor = processor
        self.frames: int = model.config.num_frames
        crop = processor.crop_size
        self.shape = (self.frames, 3, crop["height"], crop["width"])

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model at the hub id or folder `spec.weights`; safetensors only.

        Raises ArtefactError if it can't be had or does not fit.
        """
        config = load_processor(VideoMAEConfig, spec)
        processor = load_processor(VideoMAEImageProcessorPil, spec)
        classifies = "VideoMAEForVideoClassification" in (config.architectures or ())
        if classifies and config.use_mean_pooling:
            whole = load_model(VideoMAEForVideoClassification, spec, dtype, unused=["^classifier"])
            assert whole.fc_norm is not None  # with mean pooling
            return cls(spec, whole.videomae, whole.fc_norm, processor, device)
        model = load_model(VideoMAEModel, spec, dtype)
        return cls(spec, model, nn.Identity(), processor, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """Two blocks of width 32 on frames of 32 pixels; random weights."""
        config = VideoMAEConfig(
            image_size=32,
            patch_size=16,
            num_frames=4,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            use_mean_pooling=False,
            initializer_range=0.2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = VideoMAEModel(config)
        processor = VideoMAEImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
        spec = replace(spec, dim=32, image_size=32, parameters=None, weights="", revision="")
        return cls(spec, model, nn.Identity(), processor, torch.device("cpu"))

    def collate(self, items: Sequence[Path]) -> Tensor:
        """The frames of video files as float32 `[n, T, 3, h, w]`, by the model's own processor.

        Raises DataError for a file that can't be decoded.
        """
        videos = [self._read(item) for item in items]
        return torch.stack(videos) if videos else torch.empty(0, *self.shape)

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32: `pooled [n, d]`, `tokens [n, T, d]`, `layers [n, L, d]`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if not len(batch):  # transformers' attention can't be had of nothing
            return self._none(view)
        pixels = batch.to(self.device, self.dtype)
        output = self.model(pixels, output_hidden_states=view == "layers")
        tokens = output.last_hidden_state
        if view == "tokens":
            return tokens.float()
        pooled = self.norm(tokens.mean(dim=1))
        if view == "pooled":
            return pooled.float()
        blocks = [states.mean(dim=1) for states in output.hidden_states[1:-1]]
        return torch.stack([*blocks, pooled], dim=1).float()

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[Path]:
        """Small videos in a temporary folder; see `sample_videos`."""
        return sample_videos()

    def _none(self, view: str) -> Tensor:
        config = self.model.config
        rows = {
            "pooled": (),
            "tokens": (self.model.embeddings.num_patches,),
            "layers": (config.num_hidden_layers,),
        }[view]
        return torch.empty(0, *rows, config.hidden_size)

    def _read(self, item: Path) -> Tensor:
        """float32 `[T, 3, h, w]`."""
        if not isinstance(item, Path):
            raise TypeError(f"{self.spec.name} takes a Path, not {type(item).__name__}")
        with Video(item) as video:
            pictures = list(video.pictures(Sampling(self.frames).times(video.duration)))
        return self.processor(pictures, return_tensors="pt")["pixel_values"][0]
