"""A server inside the process, for miniatures: a text's embedding is its hash."""

from __future__ import annotations

import hashlib
import json

import httpx
import numpy as np

DIM = 32


def hashed(text: str, dim: int = DIM) -> list[float]:
    """A unit vector that depends only on the text."""
    digest = hashlib.shake_128(text.encode()).digest(dim)
    row = np.frombuffer(digest, np.uint8).astype(np.float64) - 127.5
    return (row / np.linalg.norm(row)).tolist()


def serve() -> httpx.MockTransport:
    """A transport that answers as OpenAI or as Cohere, by the request."""
    return httpx.MockTransport(_answer)


def _answer(request: httpx.Request) -> httpx.Response:
    body = json.loads(request.content)
    if "texts" in body:
        return httpx.Response(
            200, json={"embeddings": {"float": [hashed(t) for t in body["texts"]]}}
        )
    data = [{"index": i, "embedding": hashed(text)} for i, text in enumerate(body["input"])]
    return httpx.Response(200, json={"data": data})
