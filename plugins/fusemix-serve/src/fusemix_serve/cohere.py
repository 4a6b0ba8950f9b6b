"""`/v2/embed`, as Cohere has it.

https://docs.cohere.com/v2/reference/embed
"""

from __future__ import annotations

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fusemix_serve.inputs import Raw
from fusemix_serve.replies import Refused, reply
from fusemix_serve.served import ServedFused, named
from fusemix_serve.state import body_of, state_of
from fusemix_serve.vectors import TYPES, mean_of, shortened, written

META = {"api_version": {"version": "2"}, "billed_units": {}}


async def embed(request: Request) -> Response:
    """POST: `{"texts" | "images" | "inputs", "model", "output_dimension", "embedding_types"}`.

    `input_type` changes nothing: the rows have unit norm and are compared by cosine. An entry of
    `inputs` with several parts becomes their mean, at unit norm.
    """
    body, state = await body_of(request), state_of(request)
    served = named(state.models, body.get("model"), ServedFused, "embedding model")
    types = body.get("embedding_types") or ["float"]
    if not isinstance(types, list) or any(one not in TYPES for one in types):
        raise Refused(400, f"'embedding_types' must be a list of {', '.join(TYPES)}.")
    items, parts = _items(served, body)
    rows = mean_of(await served.encode(items), parts)
    rows = shortened(rows, body.get("output_dimension"))
    found = {one: await state.workers.run(written, rows, one) for one in types}
    answer = {
        "id": str(uuid.uuid4()),
        "response_type": "embeddings_by_type",
        "embeddings": found,
        "texts": body.get("texts") or [],
        "meta": META,
    }
    return await state.workers.run(reply, answer)


def _items(served: ServedFused, body: dict[str, Any]) -> tuple[list[Raw], list[int]]:
    """(all parts, how many each input has)."""
    forms = [name for name in ("texts", "images", "inputs") if body.get(name)]
    if len(forms) != 1 or not isinstance(body[forms[0]], list):
        raise Refused(400, "The request must have a list: one of 'texts', 'images' and 'inputs'.")
    (form,) = forms
    if form == "inputs":
        contents = [_content(one) for one in body[form]]
        parts = [part for content in contents for part in content]
        return served.inputs.items(parts), [len(content) for content in contents]
    if not all(isinstance(one, str) for one in body[form]):
        raise Refused(400, f"'{form}' must be a list of strings.")
    items = served.inputs.items(body[form], "image" if form == "images" else None)
    return items, [1] * len(items)


def _content(given: Any) -> list[Any]:
    content = given.get("content") if isinstance(given, dict) else None
    if not isinstance(content, list) or not content:
        raise Refused(400, "An entry of 'inputs' must have a list 'content'.")
    return content
