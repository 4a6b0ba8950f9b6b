"""`TextEncoder`: texts through any transformers model that reads tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer

from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import Network, Padded
from fusemix_core.specs import EncoderSpec
from fusemix_hf.base import HfEncoder, blocks, masked_mean, padded
from fusemix_hf.loading import load_processor

_NO_LIMIT = 10**6  # tokenizers without a limit say 10**30
_TO_FULL_LENGTH = ("siglip", "siglip2")
"""Trained on texts padded to the full length, the padding attended."""


class TextEncoder(HfEncoder):
    """Texts; the latent is the mean of the last hidden states over the text's tokens.

    Views: `pooled`; `tokens`, the last hidden states of all tokens that attention sees, special
    ones among them; `layers`, the mean of the hidden states after each block.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tokenizer = self.processor
        tokenizer.padding_side = "right"  # so that a text's own tokens come first
        tokenizer.truncation_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise ArtefactError(
                f"The tokenizer of {self.spec.name} has no token to pad with.",
                "Set pad_token in its tokenizer_config.json and use that folder: hf:NAME@FOLDER",
            )
        self.max_tokens = self._limit()
        self.full = self.config.model_type in _TO_FULL_LENGTH

    @classmethod
    def load_processor(cls, spec: EncoderSpec) -> Any:
        """The tokenizer."""
        return load_processor(AutoTokenizer, spec)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random BERT of two layers that reads characters."""
        from fusemix_hf.tiny import MAX_TOKENS, WIDTH, tiny_text

        views = ("pooled", "tokens", "layers")
        spec = replace(spec, dim=WIDTH, views=views, max_tokens=MAX_TOKENS, options={})
        spec = replace(spec, weights="", sha256="", revision="")
        return cls(spec, *tiny_text(), torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[str]) -> dict[str, Tensor]:
        """Texts as tokens, int64 `[n, t]` each; cut at the model's limit."""
        return self.collated(items)[0]

    def collated(self, items: Sequence[str]) -> tuple[dict[str, Tensor], int]:
        """The batch, and how many of the texts were cut. A fast tokenizer reads them once."""
        self.check(items, str, "str")
        if not items:
            return {}, 0
        encoded = self._tokens(items, truncation=self.max_tokens is not None)
        for i, ids in enumerate(encoded["input_ids"]):
            if not ids:  # nothing, for a tokenizer without special tokens
                for name, values in encoded.items():
                    values[i] = [{"input_ids": self.processor.pad_token_id}.get(name, 1)]
        length = {"padding": "max_length", "max_length": self.max_tokens} if self.full else {}
        batch = dict(self.processor.pad(encoded, return_tensors="pt", **length))
        if self.full:
            del batch["attention_mask"]
        if not getattr(encoded, "encodings", None):
            return batch, self.truncated(items)
        return batch, sum(bool(one.overflowing) for one in encoded.encodings)

    def truncated(self, items: Sequence[str]) -> int:
        """How many texts are longer than the model takes."""
        self.check(items, str, "str")
        if self.max_tokens is None or not items:
            return 0
        return sum(len(ids) > self.max_tokens for ids in self._tokens(items)["input_ids"])

    def blank(self) -> str:
        return "a"

    def network(self, view: str) -> Network | None:
        """The model and the mean, of tokens."""
        return self.network_of(view, axes=(0, 1))

    def give(self, batch: dict[str, Tensor], view: str) -> Tensor | Padded:
        if self.spec.options.get("tower"):
            return self.features(batch)
        output = self.run(batch, output_hidden_states=view == "layers")
        mask = batch["attention_mask"].bool().to(self.device)
        if view == "tokens":
            return padded(output.last_hidden_state, mask)
        if view == "layers":
            return torch.stack([masked_mean(h, mask) for h in blocks(output)], dim=1)
        return masked_mean(output.last_hidden_state, mask)

    def _tokens(self, items: Sequence[str], *, truncation: bool = False) -> Any:
        return self.processor(
            list(items),
            truncation=truncation,
            max_length=self.max_tokens if truncation else None,
            return_attention_mask=True,
            verbose=False,
        )

    def _limit(self) -> int | None:
        """Tokens that the model takes: its tokenizer's limit, or the length of its positions."""
        config = getattr(self.config, "text_config", self.config)
        positions = getattr(config, "max_position_embeddings", None)
        if positions:
            positions -= self._first_position()
        limits = (self.processor.model_max_length, positions, self.spec.max_tokens)
        return min((n for n in limits if n and 0 < n < _NO_LIMIT), default=None)

    def _first_position(self) -> int:
        """Positions that no token has: RoBERTa and its relatives count from the padding's on."""
        for name, module in self.model.named_modules():
            padding = getattr(module, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None:
                return padding + 1
        return 0
