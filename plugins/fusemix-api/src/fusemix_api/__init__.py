"""Text encoders behind an HTTP endpoint: OpenAI's, Cohere's, and `api:URL#MODEL` for any server
that speaks as they do. Metadata only; imports neither httpx nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusemix_api.address import EXAMPLE, parse_address
from fusemix_core.errors import ConfigError
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, FamilySpec

REQUIRES = {"httpx": "httpx>=0.27"}
TARGET = "fusemix_api.encoder:ApiEncoder"
BATCH = 512
"""Texts that `encode` gets: enough for several requests in flight."""
OPENAI = {"encoding": "base64"}
COHERE = {"input_type": "search_document"}


def _preset(weights: str, dim: int, options: Mapping[str, Any], **facts: Any) -> EncoderSpec:
    address = parse_address(weights)
    return EncoderSpec(
        name=address.model,
        modality="text",
        target=TARGET,
        dim=dim,
        weights=weights,
        licence="the provider's terms",
        requires=REQUIRES,
        environment=(address.key_variable,),
        batch=BATCH,
        options=options,
        **facts,
    )


PRESETS = (
    _preset(
        "https://api.openai.com/v1#text-embedding-3-small",
        1536,
        OPENAI,
        summary="OpenAI's API, many languages",
        normalised=True,
        max_tokens=8192,
        price=0.02,
    ),
    _preset(
        "https://api.openai.com/v1#text-embedding-3-large",
        3072,
        OPENAI,
        summary="OpenAI's API, many languages",
        normalised=True,
        max_tokens=8192,
        price=0.13,
    ),
    _preset(
        "cohere+https://api.cohere.com#embed-v4.0",
        1536,
        COHERE,
        summary="Cohere's API, many languages",
        max_tokens=128_000,
    ),
    _preset(
        "cohere+https://api.cohere.com#embed-english-v3.0",
        1024,
        COHERE,
        summary="Cohere's API, English",
        max_tokens=512,
        paper="https://cohere.com/blog/introducing-embed-v3",
    ),
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The presets and the family `api:`."""
    return [
        *PRESETS,
        FamilySpec(
            prefix="api",
            resolve="fusemix_api:resolve",
            summary="a model that your own server (vLLM, TEI, Ollama, llama.cpp) or a provider has",
            example=EXAMPLE,
            requires=REQUIRES,
        ),
    ]


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `api:URL#MODEL`. What the model is shows when the server answers."""
    if path is not None:
        raise ConfigError(
            f"'api:{name}' takes no weights from a path: the server has them.",
            "An @ in a model's name is written %40.",
        )
    address = parse_address(name)
    return EncoderSpec(
        name=f"api:{name}",
        modality="text",
        target=TARGET,
        summary=f"{address.model} at {address.url}",
        weights=str(address),
        requires=REQUIRES,
        environment=(address.key_variable,) if address.needs_key else (),
        batch=BATCH,
        options=COHERE if address.protocol == "cohere" else {},
    )
