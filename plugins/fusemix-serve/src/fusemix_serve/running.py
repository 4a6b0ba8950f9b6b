"""A server from its start to its end, by uvicorn."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import uvicorn
from starlette.applications import Starlette

from fusemix_core.cli.console import out
from fusemix_core.errors import ConfigError
from fusemix_core.runs.candidates import Reranking
from fusemix_core.saved.model import SavedModel
from fusemix_core.search import Collection
from fusemix_serve.app import create_app
from fusemix_serve.settings import Settings


class _Server(uvicorn.Server):
    """Prints the server's address as soon as it answers."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            out.print(f"serving: {self._address}", soft_wrap=True, highlight=False)


def run(
    collection: Collection | None,
    models: Mapping[str, SavedModel],
    settings: Settings,
    name: str = "collection",
    reranking: Reranking | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the requests that are being answered.

    Args:
        collection, models, settings, name, reranking: as in `create_app`.

    Raises:
        ConfigError: the address can't be listened on.
    """
    app = create_app(collection, models, settings, name=name, reranking=reranking)
    with _listening(settings) as listener, _quiet_signals():
        address = _address(settings, listener, app)
        _Server(_config(app, settings), address).run([listener])


def _config(app: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=int(settings.grace),
        backlog=512,
    )


def _address(settings: Settings, listener: socket.socket, app: Starlette) -> str:
    """What to open in a browser."""
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}{app.state.fusemix.login.path}"


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens on the server's address."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        # A server that was killed can be started again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"Port {settings.port} of {settings.host} can't be listened on: "
            f"{error.strerror or error}.",
            "Take another: --port 0 finds a free one.",
        ) from error
    with listener:
        yield listener


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the server and are not errors: uvicorn raises them again when it has
    stopped."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)
