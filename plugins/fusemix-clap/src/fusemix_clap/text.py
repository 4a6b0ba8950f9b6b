"""`ClapTextEncoder`: the text tower of a CLAP model, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from fusemix_hf.loading import frozen, load_model, load_processor
from tokenizers import pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    ClapTextConfig,
    ClapTextModelWithProjection,
    RobertaTokenizer,
)

from fusemix_clap import MAX_TOKENS
from fusemix_clap.audio import read_config
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.specs import EncoderSpec

Tokens = dict[str, Tensor]


class ClapTextEncoder(Encoder):
    """Descriptions of sounds, in the space that they share with sounds, unit norm.

    Texts are cut at 77 tokens, as many as CLAP was trained with. `tokens` are the hidden states of
    the last block, before the projection: wider than `pooled`.
    """

    def __init__(self, spec: EncoderSpec, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.device = device
        self.dim: int = model.config.projection_dim
        self.width: int = model.config.hidden_size
        self.model = frozen(model, device)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The text tower of the CLAP model at the hub id or folder `spec.weights`.

        Raises ArtefactError if it can't be had or does not fit.
        """
        config: Any = read_config(spec).text_config
        known = config.vocab_size
        tokenizer = load_processor(AutoTokenizer, spec)
        # Without its files transformers makes a tokenizer that knows no word, silently.
        if len(tokenizer) != known:
            raise ArtefactError(
                f"The tokenizer in {spec.weights} has {len(tokenizer)} tokens; the model {known}.",
                "Is tokenizer.json there, or vocab.json and merges.txt?",
            )
        with torch.random.fork_rng(devices=[]):
            model = load_model(ClapTextModelWithProjection, spec, dtype)
        return cls(spec, model, tokenizer, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random RoBERTa of two blocks that reads bytes."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = ClapTextModelWithProjection(ClapTextConfig(**TINY))
        spec = replace(spec, dim=TINY["projection_dim"], weights="", sha256="", revision="")
        return cls(spec, model, byte_tokenizer(), torch.device("cpu"))

    def collate(self, items: Sequence[str]) -> Tokens:
        """Texts as `input_ids` and `attention_mask`, int64 `[n, t]`."""
        return self.collated(items)[0]

    def collated(self, items: Sequence[str]) -> tuple[Tokens, int]:
        """The batch, and how many of the texts were cut: they are tokenised once."""
        self._check(items)
        if not items:
            empty = torch.zeros(0, 0, dtype=torch.int64)
            return {"input_ids": empty, "attention_mask": empty}, 0
        encoded = self.tokenizer(
            [self.spec.prompt + text for text in items],
            padding=True,
            truncation=True,
            max_length=self.spec.max_tokens,
            return_tensors="pt",
        )
        batch = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if not encoded.encodings:  # of a slow tokenizer, which does not say what it cut
            return batch, self.truncated(items)
        return batch, sum(bool(one.overflowing) for one in encoded.encodings)

    @torch.inference_mode()
    def encode(self, batch: Tokens, view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, 512]`, unit norm; `tokens [n, t, 768]` as `Padded`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        mask = batch["attention_mask"].bool().to(self.device)
        if not len(mask):
            if view == "pooled":
                return torch.empty(0, self.dim)
            return Padded(torch.empty(0, 0, self.width), mask)
        output = self.model(**{name: ids.to(self.device) for name, ids in batch.items()})
        if view == "pooled":
            return functional.normalize(output.text_embeds.float(), dim=-1)
        return Padded(output.last_hidden_state.float().masked_fill(~mask[..., None], 0), mask)

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the texts have more tokens than CLAP reads."""
        self._check(items)
        if not items or self.spec.max_tokens is None:
            return 0
        encoded = self.tokenizer([self.spec.prompt + text for text in items], verbose=False)
        return sum(len(ids) > self.spec.max_tokens for ids in encoded["input_ids"])

    def _check(self, items: Sequence[str]) -> None:
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")


_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
TINY: dict[str, Any] = {
    "vocab_size": len(_SPECIAL) + 256,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS + 2,
    "projection_dim": 32,
}


def byte_tokenizer() -> RobertaTokenizer:
    """RoBERTa's tokenizer without its merges: one token a byte."""
    pieces = (*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    return RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
