"""`SentenceTransformerEncoder`: a sentence-transformers folder, tokenised in workers.

sentence_transformers takes seconds to import, so only what loads a model does: a worker that
tokenises needs the tokenizer only.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder, Network, Padded, cat_latents
from fusemix_core.specs import EncoderSpec
from fusemix_sentence_transformers.loading import check_facts, modules_of, read_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Tokens = dict[str, Tensor]
WORDS = "words"
"""The entry of a batch that has the number of each token's word; the model doesn't get it."""

SIDE_BY_SIDE = 6
"""Blocks whose latents a token of the view `tokens-layers` has, the last ones."""
MOST_TOKENS = 64
"""Tokens of a text in the view `tokens-layers`, its first ones."""
MIN_GROUP = 8
"""A group of texts padded together is not made smaller than this to save padding."""
_NO_LIMIT = 10**9  # tokenizers without a limit say 10**30


class SentenceTransformerEncoder(Encoder):
    """Texts through a sentence-transformers model, with the pooling and normalisation it declares.

    The prompt is `spec.prompt`, or else the model's default one. Texts are cut at `max_tokens`:
    the model's own limit, or `spec.max_tokens` if that is less.

    Views: `pooled`, what the library gives; `tokens`, what its transformer gives for every token
    that attention sees, those of the prompt and special ones among them; `tokens-words`, the mean
    of these for each word of the text, as white space separates words; `layers`, each block's
    tokens under the model's own pooling (and unit norm, where it normalises). The last layer is
    `pooled`, but for a model that has more than these behind the transformer, such as a Dense;
    `layers-middle-last`, the middle and the last of these (of six the third and sixth), each of
    unit norm; `tokens-layers`, the first 64 tokens, each as it is after the last six blocks, side
    by side.
    A model that is not a plain transformer with a pooling has `pooled` only.
    """

    on_device = True

    def __init__(
        self,
        spec: EncoderSpec,
        model: SentenceTransformer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        tokenizer: Any = None,
    ) -> None:
        self.device = device
        self.model = model.requires_grad_(False).eval().to(device=device, dtype=dtype)
        self.prompt = spec.prompt or model.prompts.get(model.default_prompt_name or "", "") or ""
        self.tokenizer = tokenizer or _tokenizer(model)
        plain = self.tokenizer is not None and bool(modules_of(model, "Pooling"))
        self.spec = spec if plain else replace(spec, views=("pooled",))
        limits = [n for n in (model.max_seq_length, spec.max_tokens) if n and n < _NO_LIMIT]
        self.max_tokens: int | None = min(limits, default=None)
        self.prompt_length = self._prompt_length()

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model at the hub id or local folder `spec.weights`; safetensors, none of its code.

        Raises ArtefactError if it can't be had, is not a sentence-transformers model, or is not
        what the spec says.
        """
        model = read_model(spec.weights, spec.revision, local=spec.local)
        check_facts(spec, model)
        return cls(spec, model, device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random BERT of two layers over characters, with the spec's pooling or the mean."""
        from fusemix_sentence_transformers.tiny import DIM, MAX_TOKENS, save_tiny

        with tempfile.TemporaryDirectory() as folder:
            save_tiny(Path(folder), spec.options.get("pooling", "mean"))
            model = read_model(folder, local=True)
        spec = replace(spec, weights="", sha256="", revision="")
        spec = replace(spec, dim=DIM, max_tokens=MAX_TOKENS, normalised=True)
        return cls(spec, model, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[str]) -> list[str] | list[tuple[Tensor, Tokens]]:
        """Texts as token batches: (rows int64 `[g]`, features `[g, t]`), texts of like length
        together, so that little is padded. Plain texts for a model without a fast tokenizer."""
        return self.collated(items)[0]

    def collated(self, items: Sequence[str]) -> tuple[Any, int]:
        """The batch, and how many of the texts were cut: they are tokenised once."""
        self._check(items)
        if self.tokenizer is None or not items:
            return list(items), 0
        encoded = self.tokenizer(
            [self.prompt + text for text in items],
            truncation=self.max_tokens is not None,
            max_length=self.max_tokens,
            verbose=False,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        batch = []
        for rows in groups_of_like_length(lengths):
            part = {name: [values[i] for i in rows] for name, values in encoded.items()}
            tokens = dict(self.tokenizer.pad(part, return_tensors="pt"))
            own = [self._word_numbers(items[i], encoded.encodings[i].offsets) for i in rows]
            tokens[WORDS] = torch.full_like(tokens["input_ids"], -1)
            tokens[WORDS][tokens["attention_mask"].bool()] = torch.tensor(sum(own, []))
            batch.append((torch.tensor(rows), tokens))
        return batch, sum(bool(one.overflowing) for one in encoded.encodings)

    @torch.inference_mode()
    def encode(self, batch: Any, view: str = "pooled") -> Tensor | Padded:
        """float32 `[n, d]` of a batch that `collate` made; `[n, L, d]` for `layers`, `[n, 2, d]`
        for `layers-middle-last`, `Padded` for `tokens` and `tokens-layers`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if not batch:
            one = self.encode(self.collate(["a"]), view)
            return one[:0]
        if isinstance(batch[0], str):
            latents = self.model.encode(
                batch, prompt=self.prompt, convert_to_tensor=True, show_progress_bar=False
            )
            return latents.float()
        parts = [self._part(view, tokens) for _, tokens in batch]
        order = torch.cat([rows for rows, _ in batch]).argsort().to(self.device)
        return cat_latents(parts)[order]

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the texts are longer than `max_tokens`, and so are cut."""
        self._check(items)
        if self.tokenizer is None or self.max_tokens is None or not items:
            return 0
        encoded = self.tokenizer([self.prompt + text for text in items], verbose=False)
        return sum(len(ids) > self.max_tokens for ids in encoded["input_ids"])

    def network(self, view: str) -> Network | None:
        """The model and its pooling, of tokens; none where the model must read the texts itself."""
        give = {
            "pooled": self._pooled,
            "layers": self._layers,
            "layers-middle-last": self._middle_and_last,
        }.get(view)
        if give is None or self.tokenizer is None:
            return None
        return Network(_OfTokens(self.model, lambda t: give(self._features(t))), axes=(0, 1))

    def native(self, tool: str, view: str) -> list[Any] | None:
        """For sentence-transformers, the model's own modules: of the view `pooled`, and a model
        that needs no prompt."""
        if tool != "sentence-transformers" or view != "pooled" or self.prompt:
            return None
        modules: list[Any] = copy.deepcopy(list(self.model))
        if self.max_tokens is not None:
            modules[0].max_seq_length = self.max_tokens
        return modules

    def save_preprocessing(self, folder: Path) -> dict[str, Any]:
        """Write `tokenizer.json`, as the library `tokenizers` reads it, without cutting or
        padding."""
        if self.tokenizer is None:
            return {}
        core = self.tokenizer.backend_tokenizer
        (folder / "tokenizer.json").write_text(_plain(core.to_str()), encoding="utf-8")
        return {
            "tokenizer": "tokenizer.json",
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "pad_token_id": self.tokenizer.pad_token_id,
        }

    def _part(self, view: str, tokens: Tokens) -> Tensor | Padded:
        tokens = {name: values.to(self.device) for name, values in tokens.items()}
        words = tokens.pop(WORDS)
        if view == "tokens":
            return self._tokens(self._features(tokens))
        if view == "tokens-layers":
            return self._tokens_of_blocks(self._features(tokens))
        if view == "tokens-words":
            features = self._features(tokens)
            mask = tokens["attention_mask"].bool()
            return means_of_words(self.model[0](features)["token_embeddings"].float(), words, mask)
        return self.compute(view, **tokens)

    def _features(self, tokens: Tokens) -> dict[str, Any]:
        """What the library's modules take, and change."""
        return {**tokens, **({"prompt_length": self.prompt_length} if self.prompt_length else {})}

    def _pooled(self, features: dict[str, Any]) -> Tensor:
        """float32 `[g, d]`."""
        return self.model(features)["sentence_embedding"][:, : self.model.truncate_dim].float()

    def _tokens(self, features: dict[str, Any]) -> Padded:
        """The transformer's tokens, an item's own ones first."""
        values = self.model[0](features)["token_embeddings"].float()
        return _own_first(values, features["attention_mask"].bool())

    def _tokens_of_blocks(self, features: dict[str, Any]) -> Padded:
        """The first tokens, of the last blocks side by side."""
        mask = features["attention_mask"].bool()
        blocks = self._blocks(features)[1][-SIDE_BY_SIDE:]
        tokens = _own_first(torch.cat([block.float() for block in blocks], dim=2), mask)
        return Padded(tokens.values[:, :MOST_TOKENS], tokens.mask[:, :MOST_TOKENS])

    def _layers(self, features: dict[str, Any]) -> Tensor:
        """float32 `[g, L, d]`."""
        features, blocks = self._blocks(features)
        return self._each_pooled(features, blocks)

    def _middle_and_last(self, features: dict[str, Any]) -> Tensor:
        """float32 `[g, 2, d]`, of unit norm."""
        features, blocks = self._blocks(features)
        some = [blocks[(len(blocks) - 1) // 2], blocks[-1]]
        return normalize(self._each_pooled(features, some), dim=2)

    def _blocks(self, features: dict[str, Any]) -> tuple[dict[str, Any], list[Tensor]]:
        """What the transformer gives, and the tokens `[g, t, d]` that each block gives."""
        transformer: Any = self.model[0]
        config = transformer.model.config
        before, config.output_hidden_states = config.output_hidden_states, True
        try:
            features = transformer(features)
        finally:
            config.output_hidden_states = before
        # The last hidden state may lack the final norm that the token embeddings have.
        return features, [*features["all_layer_embeddings"][1:-1], features["token_embeddings"]]

    def _each_pooled(self, features: dict[str, Any], blocks: list[Tensor]) -> Tensor:
        layers = []
        for tokens in blocks:
            part = {**features, "token_embeddings": tokens}
            for module in modules_of(self.model, "Pooling", "Normalize"):
                part = module(part)
            layers.append(part["sentence_embedding"][:, : self.model.truncate_dim].float())
        return torch.stack(layers, dim=1)

    def _prompt_length(self) -> int:
        """Tokens of the prompt, for a pooling that leaves them out (INSTRUCTOR's)."""
        if self.tokenizer is None or not self.prompt:
            return 0
        ids = self.tokenizer(self.prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def _word_numbers(self, text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
        """The number of the word of each token, from the characters that it spans; -1 for special
        tokens and those of the prompt."""
        begin = len(self.prompt)
        starts = [begin + word.start() for word in re.finditer(r"\S+", text)]
        return [
            bisect_right(starts, end - 1) - 1 if end > max(start, begin) else -1
            for start, end in spans
        ]

    def _check(self, items: Sequence[str]) -> None:
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")


def _own_first(values: Tensor, mask: Tensor) -> Padded:
    """Tokens `[g, t, d]`, each item's own ones first; a tokenizer may pad at the left."""
    first = (~mask).int().argsort(dim=1, stable=True)
    mask = mask.gather(1, first)
    values = values.gather(1, first[:, :, None].expand_as(values))
    return Padded(values.masked_fill(~mask[:, :, None], 0), mask)


class _OfTokens(nn.Module):
    """A view of tokens `[g, t]` as a module that holds the model."""

    def __init__(self, model: nn.Module, give: Callable[[Tokens], Tensor]) -> None:
        super().__init__()
        self.model, self.give = model, give

    def forward(self, **tokens: Tensor) -> Tensor:
        return self.give(tokens)


def means_of_words(tokens: Tensor, words: Tensor, mask: Tensor) -> Padded:
    """The mean of the tokens of each word.

    Args:
        tokens: float `[n, t, d]`.
        words: int64 `[n, t]`, the number of each token's word, -1 if it is of none.
        mask: bool `[n, t]`, which tokens aren't padding.

    Returns:
        The words of each text up to the last that has a token. The mean of all its tokens stands
        for a word without any, and for a text without words.
    """
    count = words.max(dim=1).values.clamp(min=0) + 1
    most = int(count.max())
    member = words[:, None] == torch.arange(most, device=words.device)[:, None]  # [n, W, t]
    none = ~member.any(dim=2, keepdim=True)
    seen = words >= 0
    every = torch.where(seen.any(dim=1, keepdim=True), seen, mask)
    share = torch.where(none, every[:, None], member).to(tokens.dtype)
    means = (share @ tokens) / share.sum(dim=2, keepdim=True)
    there = torch.arange(most, device=words.device) < count[:, None]
    return Padded(means.masked_fill(~there[:, :, None], 0), there)


def groups_of_like_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """All rows, longest first, in groups where none is shorter than 3/4 of the group's longest
    (but for groups of less than `MIN_GROUP`)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    group: list[int] = []
    for row in order:
        if len(group) >= MIN_GROUP and 4 * lengths[row] < 3 * lengths[group[0]]:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _plain(tokenizer: str) -> str:
    """A tokenizer's JSON without what the last call set: how long to cut and to pad."""
    return json.dumps(json.loads(tokenizer) | {"truncation": None, "padding": None})


def _tokenizer(model: SentenceTransformer) -> Any:
    """The fast tokenizer of a plain text model; None where the model must read the texts itself."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    first: Any = model[0]
    tokenizer = getattr(first, "tokenizer", None)
    plain = isinstance(first, Transformer) and getattr(tokenizer, "is_fast", False)
    special = "message" in getattr(first, "modality_config", {}) or getattr(
        first, "processing_kwargs", None
    )
    return tokenizer if plain and not special else None
