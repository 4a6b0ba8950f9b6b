"""Any sentence-transformers model as a fusemix encoder: `st:NAME`, and presets. Metadata only;
imports neither sentence_transformers nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, FamilySpec

REQUIRES = {"sentence_transformers": "sentence-transformers>=6.0"}
EXAMPLE = "st:sentence-transformers/all-mpnet-base-v2"
TARGET = "fusemix_sentence_transformers.encoder:SentenceTransformerEncoder"


def _bge(size: str, dim: int, parameters: int, revision: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"bge-{size}-en-v1.5",
        aliases=(f"bge-{size}",),
        modality="text",
        target=TARGET,
        dim=dim,
        summary=f"BGE {size}, English, v1.5 (CLS, unit norm, no prompt)",
        weights=f"BAAI/bge-{size}-en-v1.5",
        revision=revision,
        licence="MIT",
        normalised=True,
        max_tokens=512,
        parameters=parameters,
        paper="https://arxiv.org/abs/2309.07597",
        requires=REQUIRES,
        options={},
    )


PRESETS = (
    _bge("small", 384, 33_360_000, "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a"),
    _bge("base", 768, 109_482_240, "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a"),
    _bge("large", 1024, 335_141_888, "d4aa6901d3a41ba39fb536a557fa166f842b0e09"),
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The presets and the family `st:`."""
    return [
        *PRESETS,
        FamilySpec(
            prefix="st",
            resolve="fusemix_sentence_transformers:resolve",
            summary="any sentence-transformers model on the hub, or saved on disk",
            example=EXAMPLE,
            requires=REQUIRES,
        ),
    ]


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `st:NAME`, where NAME is a hub id. What it is shows when it is loaded."""
    if not name.strip():
        raise ConfigError("'st:' names no model.", f"Example: {EXAMPLE}")
    return EncoderSpec(
        name=f"st:{name}",
        modality="text",
        target=TARGET,
        summary=f"the sentence-transformers model {name}",
        weights=name,
        requires=REQUIRES,
        options={},
    )
