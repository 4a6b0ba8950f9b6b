"""Query networks turn texts into vectors for an index, without the encoder, its package or torch.

    <folder>/<digest>.query     the network of one modality, named by the digest of its bytes

A safetensors file of bytes: `weights` and `model` are OpenVINO's two files, `tokenizer` is the JSON
of the library `tokenizers`. `exporting` makes them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from fusemix_core.disk import explained, write_atomically
from fusemix_core.latents import runtime
from fusemix_core.latents.shards import BadShardError, parse_header, safetensors_header
from fusemix_core.search.segments import ADVICE

SUFFIX = ".query"
TEXT = "text"
"""The medium that it takes."""
NEEDED = ("openvino", "tokenizers")
"""The packages that run one; `MAKING`, those that make one."""
MAKING = (*runtime.NEEDED, *NEEDED)
TOKENS = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs that a tokenizer gives."""
_FORMAT = "fusemix-query-1"
_PARTS = ("weights", "model", "tokenizer")


@dataclass(frozen=True)
class Asked:
    """A query as an index compares it.

    Attributes:
        lifted: float32 `[1, d + K]`; see `Scorer.lift`.
        lines: Modality that is searched → (slope, offset): the scores of inner products.
    """

    lifted: np.ndarray
    lines: Mapping[str, tuple[float, float]]

    def scores(self, rows: np.ndarray, target: str) -> np.ndarray:
        """The scorer's scores `[n]` of rows of the index, float32 `[n, d + K]`."""
        slope, offset = self.lines[target]
        return slope * (rows @ self.lifted[0]) + np.float32(offset)


class QueryNetwork:
    """A query network, loaded when it is first asked. Threads may share it.

    Args:
        facts: `slopes`, by modality that is searched, in the order of the network's offsets;
            `prompt` and `max_tokens`; digests of the model and its encoder.
        weights, model, tokenizer: See the module. Buffers of bytes, the weights writable.

    Example:
        asked = QueryNetwork.open(path).ask("a map")
        keys, _ = index.search(asked.lifted, 10)
        scores = asked.scores(index.rows(keys[0]), "image")
    """

    def __init__(self, facts: Mapping[str, Any], weights: Any, model: Any, tokenizer: Any) -> None:
        self.facts = dict(facts)
        self._parts = {"weights": weights, "model": model, "tokenizer": tokenizer}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """The network in a file, whose digest is not looked at. Raises `BadShardError` if it is
        malformed, OSError if it can't be read."""
        with open(path, "rb") as file:
            size = path.stat().st_size
            start, header = parse_header(path, file, size)
            # OpenVINO takes no memory that is for reading only; nothing writes to it.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            metadata = header["__metadata__"]
            if metadata["format"] != _FORMAT:
                raise ValueError(f"its format is {metadata['format']}")
            spans = [header[name]["data_offsets"] for name in _PARTS]
            parts = [np.frombuffer(data, np.uint8, b - a, start + a) for a, b in spans]
            return cls(json.loads(metadata["facts"]), *parts)
        except (KeyError, TypeError, ValueError) as error:
            raise BadShardError(f"{path} is damaged: {error}.") from error

    def write(self, folder: Path) -> str:
        """Write the file; the digest that names it. Raises `ArtefactError`."""
        parts = [np.frombuffer(self._parts[name], np.uint8) for name in _PARTS]
        layout = {n: ("U8", p.shape, p.size) for n, p in zip(_PARTS, parts, strict=True)}
        facts = json.dumps(self.facts, sort_keys=True)
        pieces: list[Any] = [safetensors_header(layout, {"format": _FORMAT, "facts": facts})]
        pieces += [part.data for part in parts]
        digest = hashlib.blake2b(digest_size=16)
        for piece in pieces:
            digest.update(piece)
        name = digest.hexdigest()
        with explained(f"The index {folder}", ADVICE):
            write_atomically(folder / f"{name}{SUFFIX}", pieces)
        return name

    def ask(self, text: str) -> Asked:
        """A text as the index compares it. Raises whatever the runtime raises."""
        encoding = self._tokenizer.encode(self.facts["prompt"] + text)
        given = encoding.ids, encoding.attention_mask, encoding.type_ids
        inputs = {name: np.array([one], np.int64) for name, one in zip(TOKENS, given, strict=True)}
        with self._lock:
            request = self._request
            taken = [one.any_name for one in request.model_inputs]
            request.infer({name: inputs[name] for name in taken})
            lifted, offsets = (request.get_output_tensor(i).data.copy() for i in (0, 1))
        slopes = self.facts["slopes"]
        lines = {t: (slopes[t], float(offsets[0, i])) for i, t in enumerate(slopes)}
        return Asked(lifted, lines)

    @cached_property
    def _request(self) -> Any:
        import openvino

        weights = openvino.Tensor(np.frombuffer(self._parts["weights"], np.uint8), True)
        model = runtime.core().read_model(bytes(self._parts["model"]), weights)
        return runtime.request(model, threads=1)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(bytes(self._parts["tokenizer"]).decode())
        if self.facts["max_tokens"]:
            tokenizer.enable_truncation(self.facts["max_tokens"])
        return tokenizer
