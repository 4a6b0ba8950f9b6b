"""The encoders behind `condition:`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import torch
from fusemix_hf.loading import frozen, load_model, load_processor
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder, Network, Padded
from fusemix_core.specs import EncoderSpec
from fusemix_diffusers.conditions import PARTS, token_ids
from fusemix_diffusers.tiny import clip_image, clip_text

_UNUSED = (r"position_ids$", r"logit_scale$")


class _Condition(Encoder):
    """A component of a pipeline and what prepares its items."""

    def __init__(
        self,
        spec: EncoderSpec,
        model: Any,
        processor: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec, self.processor = spec, processor
        self.device, self.dtype = device, dtype
        self.model = frozen(model, device, dtype)

    def need_view(self, view: str) -> None:
        """Raise ConfigError for a view that there is not."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )

    def need(self, items: Sequence[Any], kind: type) -> None:
        """Raise TypeError unless all items are of `kind`."""
        for item in items:
            if not isinstance(item, kind):
                raise TypeError(
                    f"{self.spec.name} takes {kind.__name__}, not {type(item).__name__}"
                )


class ConditionText(_Condition):
    """A pipeline's text encoder. `pooled` is the embedding of the text, projected if the encoder
    has a projection; `tokens` are what the pipeline's `prompt_embeds` are made of: all positions,
    padding included, as the pipelines look at them too."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The text encoder and its tokenizer in the pipeline's folder or repository."""
        component, prepares, _ = PARTS[spec.options["part"]]
        kind = CLIPTextModelWithProjection if spec.options["projected"] else CLIPTextModel
        model = load_model(kind, spec, dtype, unused=_UNUSED, subfolder=component)
        tokenizer = load_processor(CLIPTokenizer, spec, subfolder=prepares)
        return cls(spec, model, tokenizer, device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random encoder of two layers over characters."""
        model, tokenizer = clip_text()
        spec = replace(spec, dim=model.config.hidden_size, weights="", sha256="", revision="")
        return cls(spec, model, tokenizer, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[str]) -> Tensor:
        """int64 `[n, T]`: token ids, all padded to the full length."""
        self.need(items, str)
        length = self.processor.model_max_length
        return token_ids(self.processor, list(items)) if items else torch.zeros(0, length).long()

    def truncated(self, items: Sequence[str]) -> int:
        """How many texts have more tokens than the pipeline reads."""
        found = self.processor(list(items)).input_ids if items else []
        return sum(len(ids) > self.processor.model_max_length for ids in found)

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, d]`, `tokens [n, T, width]`."""
        self.need_view(view)
        ids = batch if len(batch) else batch.new_zeros(1, batch.shape[1])
        found = self.model(ids.to(self.device))
        if view == "tokens":
            return _all_of(found.last_hidden_state.float()[: len(batch)])
        pooled = getattr(found, "text_embeds", None)
        return (found.pooler_output if pooled is None else pooled).float()[: len(batch)]


class ConditionPrompt(ConditionText):
    """Both text encoders of an SDXL, as its `encode_prompt` puts them together. `pooled` is the
    embedding of the second. `tokens` are the states before the last layer, side by side, and in one
    more position, filled up with zeros, `pooled`."""

    def __init__(self, *args: Any, first: Any, tokenizer: Any) -> None:
        super().__init__(*args)
        self.first, self.tokenizer = frozen(first, self.device, self.dtype), tokenizer

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """Both text encoders and their tokenizers in the pipeline's folder or repository."""

        def loaded(part: str, kind: Any) -> tuple[Any, Any]:
            component, prepares, _ = PARTS[part]
            model = load_model(kind, spec, dtype, unused=_UNUSED, subfolder=component)
            return model, load_processor(CLIPTokenizer, spec, subfolder=prepares)

        first, tokenizer = loaded("text", CLIPTextModel)
        second, tokenizer_2 = loaded("text2", CLIPTextModelWithProjection)
        return cls(spec, second, tokenizer_2, device, dtype, first=first, tokenizer=tokenizer)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """Two random encoders of two layers over characters."""
        first, tokenizer = clip_text()
        second, tokenizer_2 = clip_text(projected=True)
        spec = replace(spec, dim=second.config.projection_dim, weights="", sha256="", revision="")
        cpu = torch.device("cpu")
        return cls(spec, second, tokenizer_2, cpu, torch.float32, first=first, tokenizer=tokenizer)

    def collate(self, items: Sequence[str]) -> Tensor:
        """int64 `[n, 2, T]`: token ids for each of the two."""
        second = super().collate(items)
        if not items:
            return torch.stack([second, second], dim=1)
        return torch.stack([token_ids(self.tokenizer, list(items)), second], dim=1)

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, d]`, `tokens [n, T + 1, width]`."""
        self.need_view(view)
        ids = (batch if len(batch) else batch.new_zeros(1, *batch.shape[1:])).to(self.device)
        second = self.model(ids[:, 1], output_hidden_states=True)
        pooled = second.text_embeds
        if view == "pooled":
            return pooled.float()[: len(batch)]
        first = self.first(ids[:, 0], output_hidden_states=True)
        tokens = torch.cat([found.hidden_states[-2] for found in (first, second)], dim=-1)
        last = torch.nn.functional.pad(pooled, (0, tokens.shape[2] - pooled.shape[1]))
        return _all_of(torch.cat([tokens, last[:, None]], dim=1).float()[: len(batch)])


class ConditionImage(_Condition):
    """A pipeline's image encoder; `pooled` is its projected embedding, not normalised."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The image encoder and its processor in the pipeline's folder or repository."""
        component, prepares, _ = PARTS["image"]
        model = load_model(
            CLIPVisionModelWithProjection, spec, dtype, unused=_UNUSED, subfolder=component
        )
        for folder in (prepares, "image_processor"):
            with suppress(ArtefactError):
                processor = load_processor(CLIPImageProcessor, spec, subfolder=folder)
                return cls(spec, model, processor, device, dtype)
        size = model.config.image_size  # an IP-Adapter's image encoder comes without a processor
        return cls(spec, model, CLIPImageProcessor(size=size, crop_size=size), device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random encoder of two layers over 4 by 4 patches."""
        model, processor = clip_image()
        spec = replace(spec, dim=model.config.projection_dim, weights="", sha256="", revision="")
        return cls(spec, model, processor, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[Image.Image]) -> Tensor:
        """float `[n, 3, h, w]`: pixels as the pipeline's processor prepares them."""
        self.need(items, Image.Image)
        if not items:
            size = self.model.config.image_size
            return torch.zeros(0, 3, size, size)
        pictures = [item.convert("RGB") for item in items]
        found = self.processor(pictures, input_data_format="channels_last", return_tensors="pt")
        return found.pixel_values

    def network(self, view: str) -> Network:
        """The encoder and its projection, of pixels."""
        return Network(_Projected(self.model))

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32 `pooled [n, d]`."""
        self.need_view(view)
        pixels = batch if len(batch) else batch.new_zeros(1, *batch.shape[1:])
        found = self.compute(view, pixels=pixels.to(self.device, self.dtype))
        return found.float()[: len(batch)]


class _Projected(nn.Module):
    """An image encoder as a module that gives one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).image_embeds


def _all_of(values: Tensor) -> Padded:
    """Tokens without padding."""
    return Padded(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))
