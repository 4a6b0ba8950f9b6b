"""MiniLM: the sentence-transformers folder that a pip package contains."""

from __future__ import annotations

from typing import Self

import torch
from fusemix_sentence_transformers.encoder import SentenceTransformerEncoder, read_model

from fusemix_core.packaged import check_file, packaged_weights
from fusemix_core.specs import EncoderSpec

TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"


class PackagedSentenceTransformerEncoder(SentenceTransformerEncoder):
    """A sentence-transformers model whose folder lies in a pip package."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged folder, or with `NAME@PATH` the user's."""
        if spec.local:
            return super().load(spec, device, dtype)
        folder = packaged_weights(spec).parent
        requirement = spec.requires[spec.weights.partition("/")[0]]
        check_file(folder / "tokenizer.json", TOKENIZER_SHA256, requirement)
        return cls(spec, read_model(str(folder), local=True), device, dtype)
