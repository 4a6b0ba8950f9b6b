"""Text encoders of medicine that end in a projection: CXR-BERT, and BiomedCLIP's text tower."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, BertPreTrainedModel, BertTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import Padded
from fusemix_core.specs import EncoderSpec
from fusemix_hf.files import first_line
from fusemix_hf.loading import frozen, load_model, load_processor
from fusemix_hf.text import TextEncoder

OPEN_CLIP = "open_clip_model.safetensors"
_HEAD = 64
"""The width of an attention head of a BERT."""


class CxrBertHead(nn.Module):
    """CXR-BERT's projection of the class token into the space it shares with radiographs."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.dense_to_hidden = nn.Linear(width, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=1e-12)
        self.dense_to_output = nn.Linear(dim, dim)

    def forward(self, first: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.dense_to_hidden(first))
        return self.dense_to_output(self.LayerNorm(hidden))


def open_clip_head(width: int, dim: int) -> nn.Sequential:
    """open_clip's projection `mlp`, whose hidden width is the mean of both."""
    between = (width + dim) // 2
    return nn.Sequential(
        nn.Linear(width, between, bias=False), nn.GELU(), nn.Linear(between, dim, bias=False)
    )


class CxrBert(BertPreTrainedModel):
    """A BERT, and CXR-BERT's projection of its class token as `pooler_output`."""

    config_class = BertConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls_projection_head = CxrBertHead(config.hidden_size, config.projection_size)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False
    ) -> BaseModelOutputWithPooling:
        return _projected(
            self.bert, self.cls_projection_head, input_ids, attention_mask, output_hidden_states
        )


class BiomedClipText(BertPreTrainedModel):
    """A BERT, and open_clip's projection of its class token as `pooler_output`."""

    config_class = BertConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = BertModel(config, add_pooling_layer=False)
        self.proj = open_clip_head(config.hidden_size, config.projection_size)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False
    ) -> BaseModelOutputWithPooling:
        return _projected(
            self.transformer, self.proj, input_ids, attention_mask, output_hidden_states
        )


def _projected(
    bert: BertModel, head: nn.Module, ids: Tensor, mask: Tensor, layers: bool
) -> BaseModelOutputWithPooling:
    found = bert(input_ids=ids, attention_mask=mask, output_hidden_states=layers)
    found.pooler_output = head(found.last_hidden_state[:, 0])
    return found


class ProjectedTextEncoder(TextEncoder):
    """Texts; the latent is a projection of the class token, unit norm.

    Views: `pooled`; `tokens` and `layers`, before the projection, as those of `TextEncoder`.
    """

    @classmethod
    def load_processor(cls, spec: EncoderSpec) -> Any:
        """BERT's tokenizer: the hub names a class of its own, or no model type at all."""
        return load_processor(BertTokenizer, spec)

    @classmethod
    @abstractmethod
    def load_text_model(cls, spec: EncoderSpec, dtype: torch.dtype) -> BertPreTrainedModel:
        """The BERT with its projection."""

    @classmethod
    @abstractmethod
    def tiny_text_model(cls, config: BertConfig) -> BertPreTrainedModel:
        """The same with random weights."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model and its tokenizer at `spec.weights`: safetensors, and no code of theirs.

        Raises ArtefactError if they can't be had or don't fit.
        """
        tokenizer = cls.load_processor(spec)
        encoder = cls(spec, cls.load_text_model(spec, dtype), tokenizer, device, dtype)
        encoder.try_out()
        return encoder

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random BERT of two layers that reads characters."""
        from fusemix_hf.tiny import MAX_TOKENS, WIDTH, seeded, tiny_text

        model, tokenizer = tiny_text()
        config: Any = model.config
        config.projection_size = WIDTH // 2
        spec = replace(spec, dim=WIDTH // 2, max_tokens=MAX_TOKENS)
        spec = replace(spec, weights="", sha256="", revision="")
        made = seeded(lambda: cls.tiny_text_model(config))
        return cls(spec, made, tokenizer, torch.device("cpu"), torch.float32)

    def give(self, batch: dict[str, Tensor], view: str) -> Tensor | Padded:
        if view != "pooled":
            return super().give(batch, view)
        return normalize(self.run(batch).pooler_output.float(), dim=1)


class CxrBertEncoder(ProjectedTextEncoder):
    """Reports through CXR-BERT, in the space that it shares with BioViL's radiographs."""

    @classmethod
    def load_text_model(cls, spec: EncoderSpec, dtype: torch.dtype) -> BertPreTrainedModel:
        return load_model(CxrBert, spec, dtype)

    @classmethod
    def tiny_text_model(cls, config: BertConfig) -> BertPreTrainedModel:
        return CxrBert(config)


class BiomedClipTextEncoder(ProjectedTextEncoder):
    """Texts in the space that they share with BiomedCLIP's images.

    The weights are a file of open_clip, both towers in one.
    """

    @classmethod
    def load_text_model(cls, spec: EncoderSpec, dtype: torch.dtype) -> BertPreTrainedModel:
        state = load_file(_open_clip_file(spec))
        own = {
            name.removeprefix("text."): value
            for name, value in state.items()
            if name.startswith("text.")
        }
        try:
            with torch.device("meta"):
                model = BiomedClipText(config_of(own))
            missing, _ = model.load_state_dict(own, strict=False, assign=True)
        except (KeyError, RuntimeError) as error:
            raise ArtefactError(
                f"The weights of {spec.name} in {spec.weights} are not those of BiomedCLIP: "
                f"{first_line(error)}."
            ) from error
        if missing:
            raise ArtefactError(
                f"The weights of {spec.name} in {spec.weights} lack {len(missing)} tensors, the "
                f"first {missing[0]}.",
                "The file is not complete, or belongs to another model.",
            )
        _give_positions(model)
        return frozen(model, torch.device("cpu"), dtype)

    @classmethod
    def tiny_text_model(cls, config: BertConfig) -> BertPreTrainedModel:
        return BiomedClipText(config)


def config_of(state: Mapping[str, Tensor]) -> BertConfig:
    """The config of a BERT and its projection, from the shapes of its tensors."""
    embeddings = "transformer.embeddings."
    vocabulary, width = state[f"{embeddings}word_embeddings.weight"].shape
    prefix = "transformer.encoder.layer."
    layers = {name.removeprefix(prefix).partition(".")[0] for name in state if prefix in name}
    config: Any = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // _HEAD, 1),
        intermediate_size=len(state[f"{prefix}0.intermediate.dense.weight"]),
        max_position_embeddings=len(state[f"{embeddings}position_embeddings.weight"]),
        type_vocab_size=len(state[f"{embeddings}token_type_embeddings.weight"]),
    )
    config.projection_size = len(state["proj.2.weight"])
    return config


def _give_positions(model: nn.Module) -> None:
    """Fill the buffers that no checkpoint has: positions in order, and segment 0."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                rows = torch.arange(buffer.shape[-1]).expand(buffer.shape)
                kept = rows if name == "position_ids" else torch.zeros_like(rows)
                module.register_buffer(name, kept.clone(), persistent=False)


def _open_clip_file(spec: EncoderSpec) -> Path:
    if spec.local:
        path = Path(spec.weights) / OPEN_CLIP
        if path.is_file():
            return path
        reason = f"{spec.weights} lacks {OPEN_CLIP}"
    else:
        try:
            return Path(hf_hub_download(spec.weights, OPEN_CLIP, revision=spec.revision or None))
        except (OSError, ValueError) as error:
            reason = first_line(error)
    name = spec.name.partition("@")[0]
    raise ArtefactError(
        f"The weights of {name} can't be had: {reason}.",
        f"Convert open_clip_pytorch_model.bin: fusemix convert-weights {name} FOLDER. Then name "
        f"{name}@FOLDER.",
    )
