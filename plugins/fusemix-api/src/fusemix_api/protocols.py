"""What is asked of a server and what it answers: OpenAI's embeddings, Cohere's embed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusemix_core.errors import ConfigError, ContractError
from fusemix_core.specs import EncoderSpec

BYTES_PER_TOKEN = 2
"""A text is cut if it has more than this for each token that the model takes. No tokenizer is at
hand: English has about four bytes a token, Chinese two to three, and digits two."""
CHARACTERS_PER_TOKEN = 4


class OpenAI:
    """`POST URL/embeddings`, as OpenAI, vLLM, TEI, Ollama, llama.cpp and many more have it.

    Options: `dimensions`, where a model can shorten its latents; `encoding`, `float` or `base64`.
    """

    path = "/embeddings"
    most_texts = 256
    known = ("dimensions", "encoding")

    def request(self, spec: EncoderSpec, model: str, texts: Sequence[str]) -> dict[str, Any]:
        body = {
            "model": model,
            "input": list(texts),
            "encoding_format": spec.options.get("encoding", "float"),
        }
        if dimensions := spec.options.get("dimensions"):
            body["dimensions"] = dimensions
        return body

    def rows(self, answer: Mapping[str, Any]) -> list[np.ndarray]:
        """The latents in the order of the texts: by `index`, which must be 0 … n-1."""
        entries = sorted(answer["data"], key=lambda entry: entry["index"])
        if [entry["index"] for entry in entries] != list(range(len(entries))):
            raise ValueError(f"indices that are not 0 to {len(entries) - 1}, each once")
        return [_floats(entry["embedding"]) for entry in entries]

    def tokens(self, answer: Mapping[str, Any]) -> int:
        """How many tokens were billed."""
        usage = answer.get("usage") or {}
        return int(usage.get("total_tokens") or usage.get("prompt_tokens") or 0)

    def cut(self, text: str, max_tokens: int | None) -> str:
        """The text as it is sent: servers of this kind refuse what is too long, so it is cut."""
        if max_tokens is None or len(text.encode()) <= (most := BYTES_PER_TOKEN * max_tokens):
            return text
        return text.encode()[:most].decode(errors="ignore")

    def is_cut(self, text: str, max_tokens: int | None) -> bool:
        return self.cut(text, max_tokens) != text


class Cohere:
    """`POST URL/v2/embed`, as Cohere has it.

    Options: `input_type`, the same for all texts, and `dimensions`.
    """

    path = "/v2/embed"
    most_texts = 96
    known = ("input_type", "dimensions")

    def request(self, spec: EncoderSpec, model: str, texts: Sequence[str]) -> dict[str, Any]:
        body = {
            "model": model,
            "texts": list(texts),
            "input_type": spec.options.get("input_type", "search_document"),
            "embedding_types": ["float"],
            "truncate": "END",
        }
        if dimensions := spec.options.get("dimensions"):
            body["output_dimension"] = dimensions
        return body

    def rows(self, answer: Mapping[str, Any]) -> list[np.ndarray]:
        """The latents, which come in the order of the texts."""
        return [_floats(row) for row in answer["embeddings"]["float"]]

    def tokens(self, answer: Mapping[str, Any]) -> int:
        """How many tokens were billed."""
        units = (answer.get("meta") or {}).get("billed_units") or {}
        return int(units.get("input_tokens") or 0)

    def cut(self, text: str, max_tokens: int | None) -> str:
        """The text as it is: the server cuts, by its own tokenizer."""
        return text

    def is_cut(self, text: str, max_tokens: int | None) -> bool:
        """An estimate: the answer does not tell."""
        return max_tokens is not None and len(text) > CHARACTERS_PER_TOKEN * max_tokens


Protocol = OpenAI | Cohere
PROTOCOLS: dict[str, type[Protocol]] = {"openai": OpenAI, "cohere": Cohere}


def protocol_of(spec: EncoderSpec, name: str) -> Protocol:
    """The protocol `name`; raises ConfigError for an option of the spec that it does not have."""
    protocol = PROTOCOLS[name]()
    for option in spec.options:
        if option not in protocol.known:
            raise ConfigError(
                f"{spec.name} has no option '{option}'.", f"It has: {', '.join(protocol.known)}."
            )
    return protocol


def read_rows(
    protocol: Protocol, answer: Any, count: int, dim: int | None, where: str
) -> np.ndarray:
    """float32 `[count, d]` of a server's answer. Raises ContractError for any other content."""
    wanted = f"{count} embeddings of {dim or 'one'} width"
    try:
        rows = protocol.rows(answer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error}" if isinstance(error, ValueError) else "JSON of another form"
        raise ContractError(where, wanted, said) from error
    widths = sorted({row.shape for row in rows})
    if len(rows) != count:
        raise ContractError(where, wanted, f"{len(rows)} embeddings")
    if len(widths) != 1 or len(widths[0]) != 1 or dim not in (None, widths[0][0]):
        found = " and ".join("×".join(map(str, width)) for width in widths)
        raise ContractError(where, wanted, f"embeddings of {found} numbers")
    return np.stack(rows)


def _floats(value: Any) -> np.ndarray:
    """float32 of a list of numbers, or of little-endian float32 in base64."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    return np.asarray(value, dtype=np.float32)
