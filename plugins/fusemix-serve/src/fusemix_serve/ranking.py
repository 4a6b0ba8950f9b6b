"""`/v1/rerank`, as Jina and Cohere have it, and `/v1/score`, as vLLM has it: scores of pairs."""

from __future__ import annotations

import uuid
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from fusemix_serve.cohere import META
from fusemix_serve.inputs import Raw, required
from fusemix_serve.replies import Refused, reply
from fusemix_serve.served import ServedFused, named
from fusemix_serve.state import body_of, state_of

_USAGE = {"prompt_tokens": 0, "total_tokens": 0}


async def rerank(request: Request) -> Response:
    """POST: `{"query": item, "documents": [item…], "model", "top_n", "return_documents"}`."""
    body, state = await body_of(request), state_of(request)
    served = named(state.models, body.get("model"), ServedFused, "embedding model")
    query = served.inputs.items([required(body, "query")])
    documents = required(body, "documents")
    if not isinstance(documents, list):
        raise Refused(400, "'documents' must be a list.")
    items = served.inputs.items(documents)
    most = body.get("top_n")
    if most is not None and (type(most) is not int or most < 1):
        raise Refused(400, "'top_n' must be a number from 1.")
    rows = await served.encode([*query, *items])
    scores = await state.workers.run(_scores, served, query, rows[:1], items, rows[1:])
    order = scores.argsort(descending=True, stable=True).tolist()[:most]
    results: list[dict[str, Any]] = [
        {"index": i, "relevance_score": float(scores[i])} for i in order
    ]
    if body.get("return_documents"):
        for one in results:
            document = documents[one["index"]]
            one["document"] = {"text": document} if isinstance(document, str) else document
    answer = {
        "id": str(uuid.uuid4()),
        "model": served.name,
        "results": results,
        "meta": META,
        "usage": _USAGE,
    }
    return reply(answer)


async def score(request: Request) -> Response:
    """POST: `{"text_1": item or list, "text_2": item or list, "model"}`, or `queries` and
    `documents`. One item on the first side is scored with each of the second."""
    body, state = await body_of(request), state_of(request)
    served = named(state.models, body.get("model"), ServedFused, "embedding model")
    names = ("queries", "documents") if "queries" in body else ("text_1", "text_2")
    left, right = (served.inputs.items(required(body, name)) for name in names)
    if len(left) not in (1, len(right)):
        raise Refused(400, f"'{names[0]}' must have one item, or as many as '{names[1]}'.")
    rows = await served.encode([*left, *right])
    first, second = rows[: len(left)], rows[len(left) :]
    if len(left) == 1:
        found = await state.workers.run(_scores, served, left, first, right, second)
    else:
        found = await state.workers.run(_paired, served, left, first, right, second)
    data = [
        {"index": i, "object": "score", "score": value} for i, value in enumerate(found.tolist())
    ]
    answer = {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": served.name,
        "data": data,
        "usage": _USAGE,
    }
    return reply(answer)


def _scores(
    served: ServedFused, query: list[Raw], row: Tensor, items: list[Raw], rows: Tensor
) -> Tensor:
    """The model's scores `[n]` of one query and items of any modalities."""
    found = torch.zeros(len(items))
    for modality in dict.fromkeys(raw.modality for raw in items):
        index = [i for i, raw in enumerate(items) if raw.modality == modality]
        found[index] = served.model.similarity(row, rows[index], query[0].modality, modality)[0]
    return found


def _paired(
    served: ServedFused, left: list[Raw], first: Tensor, right: list[Raw], second: Tensor
) -> Tensor:
    """The model's scores `[n]` of as many pairs."""
    pairs = range(len(left))
    parts = [
        _scores(served, [left[i]], first[i : i + 1], [right[i]], second[i : i + 1]) for i in pairs
    ]
    return torch.cat(parts)
