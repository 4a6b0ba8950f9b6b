"""`/v1/predict`: predictors at work."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fusemix_serve.inputs import Raw, only, required
from fusemix_serve.replies import Refused, reply
from fusemix_serve.served import ServedPredictor, named
from fusemix_serve.state import body_of, state_of


async def predict(request: Request) -> Response:
    """POST: `{"rows": [{modality: item, …}, …], "model"}`. A row may lack modalities."""
    body, state = await body_of(request), state_of(request)
    only(body, ("rows", "model"), "a request for predictions")
    served = named(state.models, body.get("model"), ServedPredictor, "predictor")
    given = required(body, "rows")
    if not isinstance(given, list) or not given:
        raise Refused(400, "'rows' must be a list of objects, modality → item.")
    rows = [_row(served, one) for one in given]
    limits, count = state.settings.limits, sum(map(len, rows))
    media = sum(isinstance(raw.value, bytes) for row in rows for raw in row.values())
    if count > limits.texts or media > limits.media:
        raise Refused(
            413,
            f"A request may have {limits.texts:,} items, and {limits.media} images and sounds.",
        )
    found = await served.predict(rows)
    data = [{"index": i, **columns} for i, columns in enumerate(found)]
    return reply({"object": "list", "model": served.name, "data": data})


def _row(served: ServedPredictor, given: Any) -> dict[str, Raw]:
    """The items of a row by modality."""
    if not isinstance(given, dict):
        raise Refused(400, "A row must be an object, modality → item.")
    items = [
        served.inputs.item({name: value}) for name, value in given.items() if value is not None
    ]
    row = {raw.modality: raw for raw in items}
    if len(row) < len(items):
        raise Refused(400, "A row has two items of one modality.")
    if not row:
        raise Refused(400, f"A row needs one of {', '.join(served.modalities)}, at least.")
    return row
