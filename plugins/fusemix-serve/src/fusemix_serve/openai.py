"""`/v1/embeddings` and `/v1/models`, as OpenAI, Jina and infinity have them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from fusemix_serve.inputs import Raw, required
from fusemix_serve.replies import Refused, reply
from fusemix_serve.served import Served, ServedFused, named
from fusemix_serve.state import State, body_of, state_of
from fusemix_serve.vectors import shortened, written

_FORMS = {
    "search_query": "query",
    "query": "query",
    "search_document": "gallery",
    "document": "gallery",
    "passage": "gallery",
}
"""Values of `input_type` → the side of a search."""


async def embeddings(request: Request) -> Response:
    """POST: `{"input": …, "model", "dimensions", "encoding_format", "modality", "input_type"}`."""
    body, state = await body_of(request), state_of(request)
    served = named(state.models, body.get("model"), ServedFused, "embedding model")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise Refused(400, "'encoding_format' must be float or base64.")
    side = _side(body)
    given = required(body, "input")
    items = served.inputs.items(given, _modality(body))
    rows = await served.encode(items)
    if side:
        rows = await state.workers.run(lifted, served, rows, items, side)
    else:
        rows = shortened(rows, body.get("dimensions"))
    vectors = await state.workers.run(written, rows, form)
    return await state.workers.run(
        reply,
        {
            "object": "list",
            "model": served.name,
            "data": [
                {"object": "embedding", "index": i, "embedding": vector}
                for i, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        },
    )


def _modality(body: dict[str, Any]) -> str | None:
    """infinity's `modality`, of the strings in the input."""
    modality = body.get("modality")
    if modality is not None and not isinstance(modality, str):
        raise Refused(400, "'modality' must be a string.")
    return modality


def _side(body: dict[str, Any]) -> str | None:
    """The side of a search for which vectors are asked, if any."""
    given = body.get("input_type")
    if given is None:
        return None
    if not isinstance(given, str) or given not in _FORMS:
        raise Refused(400, f"'input_type' must be one of {', '.join(_FORMS)}.")
    if body.get("dimensions") is not None:
        raise Refused(400, "'dimensions' and 'input_type' don't go together.")
    return _FORMS[given]


def lifted(served: ServedFused, rows: Tensor, items: list[Raw], side: str) -> Tensor:
    """Rows `[n, d + K]` whose inner product ranks as the model's scores do (`Scorer.lift`), for
    queries of any modality."""
    model, found = served.model, None
    for modality in dict.fromkeys(raw.modality for raw in items):
        index = [i for i, raw in enumerate(items) if raw.modality == modality]
        own = model.scorer.lift(rows[index], modality, model.modalities, side == "gallery")
        if found is None:
            found = rows.new_zeros(len(items), own.shape[1])
        found[index] = own.float().cpu()
    assert found is not None
    return found


async def models(request: Request) -> Response:
    """GET: all models."""
    state = state_of(request)
    return reply({"object": "list", "data": [described(state, m) for m in state.models.values()]})


async def model(request: Request) -> Response:
    """GET: one of them."""
    state = state_of(request)
    return reply(
        described(state, named(state.models, request.path_params["name"], Served, "model"))
    )


def described(state: State, served: Served) -> dict[str, Any]:
    """A model as `/v1/models` lists it."""
    fused = isinstance(served, ServedFused)
    return {
        "id": served.name,
        "object": "model",
        "created": int(state.started),
        "owned_by": "fusemix",
        "kind": "fused" if fused else "predictor",
        "dimensions": served.model.dim if isinstance(served, ServedFused) else None,
        "modalities": {m: served.inputs.takes(m) for m in served.modalities},
    }
