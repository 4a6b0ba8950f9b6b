"""The checks of a request before it is answered: who asks, from which page, how much, how long.

Pure ASGI, the outermost layer of the application.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fusemix_serve.metrics import Metrics
from fusemix_serve.replies import Refused, as_refused, busy, failure
from fusemix_serve.settings import LOOPBACK, Settings

CSP = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_READING = frozenset({"GET", "HEAD"})


class Login:
    """How a browser gets its cookie: by an address that works once.

    Attributes:
        code: in that address; "" if it has been used, or if no token is asked for.
        session: what the cookie contains.
    """

    def __init__(self, settings: Settings) -> None:
        self.code = secrets.token_urlsafe(24) if settings.token else ""
        self.session = secrets.token_urlsafe(32)

    @property
    def path(self) -> str:
        """The path and query of the address; "/" if there is none."""
        return f"/login?code={self.code}" if self.code else "/"


class Guards:
    """Checks requests in this order: Host, Origin, token, load, size.

    Args:
        app: what answers requests that pass.
        settings: what is allowed.
        metrics: where requests are counted.
        login: of the browser.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, login: Login) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets
            return
        started, status, begun = time.perf_counter(), 500, False

        async def send_safely(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self._metrics.in_flight += 1
        try:
            response = self._answer(scope)
            if response is None:
                await self._app(scope, self._limited(scope, receive), send_safely)
            else:
                await response(scope, receive, send_safely)
        except Exception as error:
            if begun:  # nothing but breaking off can be done
                raise
            await failure(as_refused(error))(scope, receive, send_safely)
        finally:
            self._metrics.in_flight -= 1
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.request(route, status, time.perf_counter() - started)

    def _answer(self, scope: Scope) -> Response | None:
        """A reply without the application's help: of the login. Raises `Refused`."""
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        if len(host) != 1 or not self._known(host[0]):
            raise Refused(
                421,
                "This server isn't known by that name.",
                "Allow it when the server starts: --allow-host NAME",
            )
        if scope["method"] not in _READING:
            self._check_origin(headers, host[0])
        if scope["path"] in ("/health", "/ready"):  # load balancers have no token
            return None
        if scope["path"] == "/login" and self._settings.token:
            return self._log_in(scope)
        if self._settings.token and not self._authorised(scope, headers):
            raise Refused(
                401,
                "This server needs its token.",
                "Send the header 'Authorization: Bearer TOKEN'. For a browser, open the address "
                "that the server printed when it started.",
                {"WWW-Authenticate": "Bearer"},
            )
        if self._metrics.in_flight > self._settings.in_flight:
            raise busy("The server is answering as many requests as it can.")
        return None

    def _known(self, host: str) -> bool:
        """Whether a Host header names this server. An attacker's page can make its own name point
        to this machine, but can't change the name that the browser sends."""
        name = _name_of(host)
        if name in LOOPBACK or name in {self._settings.host, *self._settings.hosts}:
            return True
        if self._settings.loopback:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address has no name that could be pointed elsewhere

    def _check_origin(self, headers: Headers, host: str) -> None:
        """Refuse what another page sends. Programs send no Origin; browsers always do."""
        origin = headers.get("origin")
        if origin is None:
            foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        else:
            scheme, _, rest = origin.partition("://")
            foreign = scheme not in ("http", "https") or rest.lower() != host.lower()
        if foreign:
            raise Refused(
                403, "Another page may not ask this server.", "Use the server's own page."
            )

    def _cookie(self, scope: Scope) -> str:
        """The name of the cookie: of the port, as browsers send cookies to all ports of a host."""
        server = scope.get("server") or ("", 0)
        return f"fusemix-{server[1]}"

    def _authorised(self, scope: Scope, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(token.strip(), self._settings.token):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        found = cookies.get(self._cookie(scope))
        return found is not None and _same(found.value, self._login.session)

    def _log_in(self, scope: Scope) -> Response:
        """The cookie for the first browser that opens the printed address."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("code", [""])[0]
        if not self._login.code or not _same(given, self._login.code):
            raise Refused(403, "This address has been used.", "Start the server again for another.")
        self._login.code = ""
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._cookie(scope),
            self._login.session,
            httponly=True,
            samesite="strict",
            secure=scope.get("scheme") == "https",
        )
        return response

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that refuses a body which is too large, or too slow to arrive."""
        most, taken = self._settings.limits.body, 0
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise _too_large(most)
        deadline = time.monotonic() + self._settings.timeout
        complete = False

        async def limited() -> Message:
            nonlocal taken, complete
            if complete:  # only a disconnection can follow
                return await receive()
            try:
                left = deadline - time.monotonic()
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError as error:
                raise Refused(408, "The request did not arrive in time.") from error
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > most:
                raise _too_large(most)
            return message

        return limited


def _too_large(most: int) -> Refused:
    return Refused(
        413,
        f"The request is larger than {most >> 20} MB.",
        "Send fewer or smaller items, or start the server with --max-body.",
        {"Connection": "close"},
    )


def _name_of(host: str) -> str:
    """The name in a Host header, without the port and in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are the same, in a time that doesn't depend on how far they agree."""
    return hmac.compare_digest(given.encode(), wanted.encode())
