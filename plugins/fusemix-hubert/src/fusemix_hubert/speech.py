"""`SpeechEncoder`: what all of these encoders share. A clip is cut into windows, each window is an
input of its own, and what is known of a clip is the mean over the frames of all its windows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from fusemix_hf.loading import frozen, load_processor
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.specs import EncoderSpec


@dataclass(frozen=True)
class Group:
    """Windows that go through the model together.

    values: float32 `[g, …]`, what the feature extractor made of them; samples: int64 `[g, t]`, 1
    where `values` is not padding, or None where nothing may be or needs to be masked; frames: int64
    `[g]`, how many frames of the output hold sound; window: int64 `[g]`, which windows they are.
    """

    values: Tensor
    samples: Tensor | None
    frames: Tensor
    window: Tensor


@dataclass(frozen=True)
class Windows:
    """A batch of clips: its windows in groups, and clip int64 `[w]`, whose each window is."""

    groups: list[Group]
    clip: Tensor
    clips: int


class SpeechEncoder(Encoder):
    """Speech through a transformer over frames of 20 ms.

    Views: `pooled`, the mean over all frames that contain sound; `time`, these frames; `layers`,
    their mean after each block.
    """

    window: int
    """Samples in the longest window."""
    least: int
    """Samples behind one frame: a shorter clip is padded to this with silence."""

    def __init__(
        self, spec: EncoderSpec, model: PreTrainedModel, features: Any, device: torch.device
    ) -> None:
        self.spec = spec
        self.features = features
        self.device = device
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.dim: int = model.config.hidden_size
        self.blocks: int = len(layers_of(model))
        self.model = frozen(model, device)

    @classmethod
    @abstractmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self: ...

    @abstractmethod
    def _groups(self, windows: Sequence[np.ndarray]) -> list[Group]:
        """The windows, float32 `[n]` each, as the model takes them."""

    def collate(self, items: Sequence[Audio]) -> Windows:
        """Clips at 16 kHz as windows, by the model's own feature extractor.

        Raises TypeError for an item that is no `Audio`, ValueError for another rate.
        """
        windows: list[np.ndarray] = []
        clip: list[int] = []
        for i, item in enumerate(items):
            pieces = cut(self._samples(item), self.window, self.least)
            windows += pieces
            clip += [i] * len(pieces)
        groups = self._groups(windows) if windows else []
        return Windows(groups, torch.tensor(clip, dtype=torch.int64), len(items))

    @torch.inference_mode()
    def encode(self, batch: Windows, view: str = "pooled") -> Tensor | Padded:
        """float32 on the CPU: `pooled [n, d]`, `time [n, T, d]` as `Padded`, `layers [n, L, d]`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if view == "time":
            return self._time(batch)
        depth = self.blocks if view == "layers" else 1
        total = torch.zeros(batch.clips, depth, self.dim, dtype=torch.float64)
        count = torch.zeros(batch.clips, dtype=torch.int64)
        for group in batch.groups:
            clip = batch.clip[group.window]
            # On the CPU, where adding up has one order; an accelerator's index_add_ has none.
            total.index_add_(0, clip, self._sums(group, depth).cpu().double())
            count.index_add_(0, clip, group.frames)
        latents = (total / count[:, None, None]).float()
        return latents if view == "layers" else latents[:, 0]

    def _sums(self, group: Group, depth: int) -> Tensor:
        """float32 `[g, depth, d]`: sums over the frames with sound, by block."""
        hidden = self._hidden(group, all_blocks=depth > 1)
        position = torch.arange(hidden[0].shape[1], device=self.device)
        padding = position >= group.frames.to(self.device)[:, None]
        sums = [h.float().masked_fill(padding[..., None], 0).sum(dim=1) for h in hidden]
        return torch.stack(sums, dim=1)

    def _time(self, batch: Windows) -> Padded:
        windows: list[Tensor] = [torch.empty(0)] * len(batch.clip)
        for group in batch.groups:
            (last,) = self._hidden(group, all_blocks=False)
            for row, window, frames in zip(last, group.window, group.frames, strict=True):
                windows[window] = row[:frames].float().cpu()
        if not windows:
            return Padded(torch.zeros(0, 0, self.dim), torch.zeros(0, 0, dtype=torch.bool))
        pieces: list[list[Tensor]] = [[] for _ in range(batch.clips)]
        for clip, frames in zip(batch.clip.tolist(), windows, strict=True):
            pieces[clip].append(frames)
        return Padded.of([torch.cat(frames) for frames in pieces])

    def _hidden(self, group: Group, *, all_blocks: bool) -> tuple[Tensor, ...]:
        """`[g, t, d]` after every block, or after the last only; final norm if there is one."""
        mask = {} if group.samples is None else {"attention_mask": group.samples.to(self.device)}
        values = group.values.to(self.device, self.dtype)
        output = self.model(values, output_hidden_states=all_blocks, **mask)
        # The first hidden state goes into the first block; the last may lack the final norm.
        inner = output.hidden_states[1:-1] if all_blocks else ()
        return (*inner, output.last_hidden_state)

    def _samples(self, item: Audio) -> np.ndarray:
        if not isinstance(item, Audio):
            raise TypeError(f"{self.spec.name} takes Audio, not {type(item).__name__}")
        if item.rate != self.spec.sample_rate:
            raise ValueError(
                f"{self.spec.name} takes {self.spec.sample_rate} Hz, not {item.rate} Hz"
            )
        return item.samples


def cut(samples: np.ndarray, window: int, least: int) -> list[np.ndarray]:
    """The clip in windows, the last one shorter. A rest of less than `least` samples, too few for a
    frame, is left out; a whole clip of less is padded with silence."""
    if len(samples) < least:
        return [np.pad(samples, (0, least - len(samples)))]
    starts = range(0, len(samples) - least + 1, window)
    return [samples[at : at + window] for at in starts]


def layers_of(model: nn.Module) -> Sequence[nn.Module]:
    """The model's transformer blocks."""
    encoder: Any = getattr(model, "encoder", model)
    return encoder.layers


def read_config(spec: EncoderSpec) -> PretrainedConfig:
    """The config at `spec.weights`; raises ArtefactError if it is another model's or width's."""
    config = load_processor(AutoConfig, spec)
    wanted = spec.options["model"]
    if config.model_type != wanted:
        raise ArtefactError(
            f"{spec.weights} contains a model of type {config.model_type}; "
            f"{spec.name} is {wanted}.",
            "Name the encoder that it is: fusemix encoders list --modality audio",
        )
    if config.hidden_size != spec.dim:
        raise ArtefactError(
            f"The model in {spec.weights} is {config.hidden_size} wide; {spec.name} is {spec.dim}.",
            "Name the size that it is: fusemix encoders list --modality audio",
        )
    return config
