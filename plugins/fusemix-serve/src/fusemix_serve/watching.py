"""`/health`, `/info` and `/metrics`."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from fusemix_core.versions import version
from fusemix_serve.openai import described
from fusemix_serve.replies import Refused, reply
from fusemix_serve.state import state_of


async def health(request: Request) -> Response:
    """GET: whether the server answers."""
    return reply({"status": "ok"})


async def ready(request: Request) -> Response:
    """GET: whether the encoders of texts are loaded, so that no request waits for one; 503 before
    they are, and if one can't be loaded."""
    state = state_of(request)
    if state.fault:
        raise Refused(503, state.fault, code="not_loaded")
    if not state.ready:
        raise Refused(503, "The server is loading its encoders.", code="loading")
    return reply({"status": "ready"})


async def info(request: Request) -> Response:
    """GET: version, models and limits."""
    state = state_of(request)
    return reply(
        {
            "version": version(),
            "models": [described(state, one) for one in state.models.values()],
            "limits": asdict(state.settings.limits),
        }
    )


async def metrics(request: Request) -> Response:
    """GET: counters in Prometheus's text format."""
    text = state_of(request).metrics.text()
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
