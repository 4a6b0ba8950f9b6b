"""The state that the handlers of an application share, and how they read requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from fusemix_core.errors import FusemixError
from fusemix_serve.gallery import Gallery
from fusemix_serve.guards import Login
from fusemix_serve.metrics import Metrics
from fusemix_serve.replies import Refused
from fusemix_serve.served import Served, ServedFused, Workers
from fusemix_serve.settings import Settings
from fusemix_serve.thumbs import Thumbs
from fusemix_serve.uploads import Uploads


@dataclass
class State:
    """The state of an application, the same for all requests.

    Attributes:
        gallery: the collection behind the page, if there is one.
        own: the collection's model, which encodes the page's queries.
        ready: whether `warm` has loaded what the first requests need.
        fault: why it could not.
    """

    settings: Settings
    metrics: Metrics
    workers: Workers
    models: Mapping[str, Served]
    login: Login
    uploads: Uploads
    thumbs: Thumbs
    gallery: Gallery | None = None
    own: ServedFused | None = None
    started: float = field(default_factory=time.time)
    ready: bool = False
    fault: str = ""

    async def warm(self) -> None:
        """Load the encoders of texts, and read the collection's columns, before a request asks."""
        loop = asyncio.get_running_loop()
        try:
            for served in self.models.values():
                if isinstance(served, ServedFused):
                    await loop.run_in_executor(self.workers.encoding, served.load_texts)
            if self.gallery is not None:
                await self.workers.run(self.gallery.described)
        except FusemixError as error:  # requests will say the same
            self.fault = error.message
        else:
            self.ready = True

    @property
    def asking(self) -> ServedFused:
        """The collection's model. Raises `Refused` if there is no collection."""
        if self.own is None:
            raise _NO_COLLECTION
        return self.own


_NO_COLLECTION = Refused(
    404, "This server has no collection to search.", "Start it with an index: fusemix serve I"
)


def state_of(request: Request) -> State:
    """The state of the application that got a request."""
    return request.app.state.fusemix


def gallery_of(request: Request) -> Gallery:
    """The collection of the application. Raises `Refused` if it has none."""
    gallery = state_of(request).gallery
    if gallery is None:
        raise _NO_COLLECTION
    return gallery


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request.

    Raises:
        Refused: it has none, or claims another type.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind != "application/json":  # a form of another page can't send this type unasked
        raise Refused(415, "The request must be JSON.", "Send Content-Type: application/json.")
    try:
        body = json.loads(await request.body(), parse_constant=_no_number)
        # Half a surrogate pair is a valid escape in JSON, but no character.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request isn't valid JSON.") from error
    except ClientDisconnect as error:
        raise Refused(400, "The request ended early.") from error
    if not isinstance(body, dict):
        raise Refused(400, "The request must be a JSON object.")
    return body


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
