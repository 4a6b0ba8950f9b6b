"""`SentenceTransformerEncoder`: a sentence-transformers folder, tokenised in workers.

sentence_transformers takes seconds to import, so only what loads a model does: a worker that
tokenises needs the tokenizer alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Tokens = dict[str, Tensor]

MIN_GROUP = 8
"""A group of texts padded together is not made smaller than this to save padding."""
_NO_LIMIT = 10**9  # tokenizers without a limit say 10**30


class SentenceTransformerEncoder(Encoder):
    """Texts through a sentence-transformers model, with the pooling and normalisation it declares.

    The prompt is `spec.prompt`, or else the model's default one. Texts are cut at `max_tokens`:
    the model's own limit, or `spec.max_tokens` where that is less.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: SentenceTransformer,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self.device = device
        self.model = model.requires_grad_(False).eval().to(device=device, dtype=dtype)
        self.prompt = spec.prompt or model.prompts.get(model.default_prompt_name or "", "") or ""
        self.tokenizer = _tokenizer(model)
        limits = [n for n in (model.max_seq_length, spec.max_tokens) if n and n < _NO_LIMIT]
        self.max_tokens: int | None = min(limits, default=None)
        self.prompt_length = self._prompt_length()

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model at the hub id or local folder `spec.weights`; safetensors, none of its code.

        Raises ArtefactError where it can't be had or is no sentence-transformers model.
        """
        return cls(spec, read_model(spec.weights, spec.revision, local=spec.local), device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random BERT of two layers that reads characters; mean pooling."""
        from fusemix_sentence_transformers.tiny import DIM, MAX_TOKENS, save_tiny

        with tempfile.TemporaryDirectory() as folder:
            save_tiny(Path(folder))
            model = read_model(folder, local=True)
        spec = replace(spec, dim=DIM, max_tokens=MAX_TOKENS, weights="", sha256="", revision="")
        return cls(spec, model, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[str]) -> list[str] | list[tuple[Tensor, Tokens]]:
        """Texts as token batches: (rows int64 `[g]`, features `[g, t]`), texts of like length
        together, so that little is padded. Plain texts for a model without a fast tokenizer."""
        self._check(items)
        if self.tokenizer is None or not items:
            return list(items)
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
            batch.append((torch.tensor(rows), dict(self.tokenizer.pad(part, return_tensors="pt"))))
        return batch

    @torch.inference_mode()
    def encode(self, batch: Any, view: str = "pooled") -> Tensor:
        """float32 `[n, d]` of a batch that `collate` made."""
        if view != "pooled":
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        if not batch:
            return torch.empty(0, self._dim())
        if isinstance(batch[0], str):
            latents = self.model.encode(
                batch, prompt=self.prompt, convert_to_tensor=True, show_progress_bar=False
            )
            return latents.float()
        parts = [self._forward(tokens) for _, tokens in batch]
        rows = torch.cat([rows for rows, _ in batch]).to(self.device)
        return torch.cat(parts)[rows.argsort()]

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the texts are longer than `max_tokens`, and so are cut."""
        self._check(items)
        if self.tokenizer is None or self.max_tokens is None or not items:
            return 0
        encoded = self.tokenizer([self.prompt + text for text in items], verbose=False)
        return sum(len(ids) > self.max_tokens for ids in encoded["input_ids"])

    def _forward(self, tokens: Tokens) -> Tensor:
        features: dict[str, Any] = {k: v.to(self.device) for k, v in tokens.items()}
        if self.prompt_length:
            features["prompt_length"] = self.prompt_length
        return self.model(features)["sentence_embedding"][:, : self.model.truncate_dim].float()

    def _prompt_length(self) -> int:
        """Tokens of the prompt, for a pooling that leaves them out (INSTRUCTOR's)."""
        if self.tokenizer is None or not self.prompt:
            return 0
        ids = self.tokenizer(self.prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def _dim(self) -> int:
        return self.encode(self.collate(["a"])).shape[1]

    def _check(self, items: Sequence[str]) -> None:
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")


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


def read_model(weights: str, revision: str = "", *, local: bool = False) -> SentenceTransformer:
    """The sentence-transformers model at a hub id or in a folder, on the CPU."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    if local and not (Path(weights) / "modules.json").is_file():
        raise _not_one(weights)
    try:
        with _without_progress_bars():
            model = SentenceTransformer(
                weights,
                device="cpu",
                revision=revision or None,
                trust_remote_code=False,
                local_files_only=local,
                model_kwargs={"use_safetensors": True},
            )
            known = local or is_sentence_transformer_model(weights, revision=revision or None)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ArtefactError(
            f"The sentence-transformers model {weights} can't be loaded: {_first_line(error)}",
            "Check its name and the network, or give a copy on disk: st:NAME@FOLDER. "
            "Only safetensors are read, and no code of the repository is run.",
        ) from error
    if not known:
        raise _not_one(weights)
    return model


def _not_one(weights: str) -> ArtefactError:
    return ArtefactError(
        f"{weights} is no sentence-transformers model: it has no modules.json.",
        "So nothing says how to pool its tokens. Use a model that was saved by "
        "sentence-transformers, or another plugin's family for plain transformers.",
    )


def _tokenizer(model: SentenceTransformer) -> Any:
    """The fast tokenizer of a plain text model; None where the model must read the texts itself."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    first = model[0]
    tokenizer = getattr(first, "tokenizer", None)
    plain = isinstance(first, Transformer) and getattr(tokenizer, "is_fast", False)
    special = "message" in getattr(first, "modality_config", {}) or getattr(
        first, "processing_kwargs", None
    )
    return tokenizer if plain and not special else None


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
