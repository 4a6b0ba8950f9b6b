"""MiniLM: the sentence-transformers folder that a pip package contains."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, cast

import torch
from fusemix_sentence_transformers.encoder import SentenceTransformerEncoder, read_model

from fusemix_core.packaged import check_file, packaged_weights
from fusemix_core.specs import EncoderSpec
from fusemix_starter.bert import MiniLM, TextTokenizer

TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"


class PackagedSentenceTransformerEncoder(SentenceTransformerEncoder):
    """A sentence-transformers model whose folder lies in a pip package.

    The packaged weights are known, so plain torch runs them: sentence_transformers, which takes
    five seconds to import, is only needed for the user's own folder and by `native`.
    """

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged folder, or with `NAME@PATH` the user's."""
        if spec.local:
            return super().load(spec, device, dtype)
        folder = _folder(spec)
        tokenizer = TextTokenizer(folder / "tokenizer.json")
        model = cast(Any, MiniLM(folder / "model.safetensors"))
        return cls(spec, model, device, dtype, tokenizer=tokenizer)

    def native(self, tool: str, view: str) -> list[Any] | None:
        """The library's own modules, loaded now."""
        if not isinstance(self.model, MiniLM):
            return super().native(tool, view)
        if tool != "sentence-transformers" or view != "pooled" or self.prompt:
            return None
        dtype = next(self.model.parameters()).dtype
        model = read_model(str(_folder(self.spec)), local=True)
        return type(self)(self.spec, model, self.device, dtype).native(tool, view)


def _folder(spec: EncoderSpec) -> Path:
    """The folder in the package, its files checked."""
    folder = packaged_weights(spec).parent
    requirement = spec.requires[spec.weights.partition("/")[0]]
    check_file(folder / "tokenizer.json", TOKENIZER_SHA256, requirement)
    return folder
