"""The application: routes, guards and error replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.runs.candidates import Reranking
from fusemix_core.saved.model import SavedModel
from fusemix_core.search import Collection
from fusemix_serve import cohere, files, openai, predicting, ranking, searching, watching
from fusemix_serve.gallery import Gallery
from fusemix_serve.guards import Guards, Login
from fusemix_serve.metrics import Metrics
from fusemix_serve.replies import Refused, as_refused, failure
from fusemix_serve.served import ServedFused, Workers, served
from fusemix_serve.settings import Settings
from fusemix_serve.state import State
from fusemix_serve.thumbs import Thumbs
from fusemix_serve.uploads import Uploads

STATIC = Path(__file__).parent / "static"


def create_app(
    collection: Collection | None,
    models: Mapping[str, SavedModel],
    settings: Settings | None = None,
    *,
    name: str = "collection",
    reranking: Reranking | None = None,
) -> Starlette:
    """The application, with all its checks.

    Args:
        collection: what the page searches, if anything.
        models: name → fused model or predictor. The first of a kind answers requests that name
            none.
        settings: what is allowed; the defaults serve this machine only.
        name: of the collection, and of its model.
        reranking: orders the first results of a search anew, if anything does.

    Raises:
        ConfigError: there is nothing to serve.

    Example:
        app = create_app(None, {"photos": fusemix_core.load("runs/photos")})
        uvicorn.run(app)
    """
    settings = settings or Settings()
    if collection is None and not models:
        raise ConfigError("There is nothing to serve.", "Name an index or a run.")
    metrics = Metrics()
    workers, login = Workers(settings, metrics), Login(settings)
    known = {} if collection is None else {name: collection.model}
    both = served({**known, **models}, workers)
    state = State(settings, metrics, workers, both, login, Uploads(), Thumbs())
    if collection is not None:
        own = both[name]
        assert isinstance(own, ServedFused)
        state.gallery, state.own = Gallery(name, collection, reranking), own

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        warming = asyncio.create_task(state.warm())
        yield
        warming.cancel()
        workers.close()

    handlers: dict[Any, Any] = dict.fromkeys((Refused, FusemixError, HTTPException), _answer)
    guards = Middleware(Guards, settings=settings, metrics=metrics, login=login)
    app = Starlette(
        routes=_routes(), exception_handlers=handlers, middleware=[guards], lifespan=lifespan
    )
    app.state.fusemix = state
    return app


def _routes() -> list[BaseRoute]:
    post = ["POST"]
    return [
        Route("/health", watching.health),
        Route("/ready", watching.ready),
        Route("/info", watching.info),
        Route("/metrics", watching.metrics),
        Route("/v1/models", openai.models),
        Route("/v1/models/{name:path}", openai.model),
        *(Route(p, openai.embeddings, methods=post) for p in ("/v1/embeddings", "/embeddings")),
        Route("/v2/embed", cohere.embed, methods=post),
        *(Route(p, ranking.rerank, methods=post) for p in ("/v1/rerank", "/v2/rerank", "/rerank")),
        *(Route(p, ranking.score, methods=post) for p in ("/v1/score", "/score")),
        Route("/v1/predict", predicting.predict, methods=post),
        Route("/api/info", searching.info),
        Route("/api/search", searching.search, methods=post),
        Route("/api/uploads", searching.upload, methods=post),
        Route("/api/items", searching.items),
        Route("/api/items/{key}", searching.item),
        Route("/api/facets", searching.facets),
        Route("/api/map", searching.points),
        Route("/api/map/keys", searching.point_keys),
        Route("/api/map/colours", searching.colours),
        Route("/thumb/{key}", files.thumb),
        Route("/media/{key}", files.media),
        Route("/", _page),
        Mount("/static", _Static(directory=STATIC)),
    ]


class _Static(StaticFiles):
    """Files that browsers ask for again each time, so that an upgrade shows at once."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        response = super().file_response(*given, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _page(request: Request) -> Response:
    """GET: the page."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _answer(request: Request, error: Exception) -> Response:
    """Any error as a JSON reply."""
    if isinstance(error, HTTPException):
        refused = Refused(error.status_code, error.detail, headers=error.headers)
        return failure(refused)
    return failure(as_refused(error))
