"""Replies in JSON, and errors that reveal no path of the server's."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from fusemix_core.errors import ConfigError, DataError, FusemixError

log = logging.getLogger("fusemix_serve")
_PATH = re.compile(r"(?:\b[A-Za-z]:)?(?:[/\\][\w.\-~]+){2,}")
_CODES = {
    400: "bad_request",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media",
    421: "wrong_host",
    429: "busy",
    500: "internal",
    503: "stopping",
}


class Refused(Exception):
    """A request that gets an error as its answer.

    Args:
        status: of HTTP.
        message: what is wrong.
        hint: what to do.
        headers: further ones of the reply.
        code: a word for programs; that of the status if empty.
    """

    def __init__(
        self,
        status: int,
        message: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint
        self.headers = dict(headers or {})
        self.code = code or _CODES.get(status, "error")


def busy(what: str) -> Refused:
    """429, with the time after which to ask again."""
    return Refused(429, what, "Ask again in a second.", {"Retry-After": "1"})


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON reply. Non-ASCII characters are escaped, so that any string can be sent."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, headers, "application/json")


def failure(error: Refused) -> Response:
    """The reply to a refused request: ours, with the `type` that OpenAI's clients read."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    told = {"message": error.message, "hint": error.hint, "code": error.code, "type": kind}
    return reply({"error": told, "message": error.message}, error.status, error.headers)


def as_refused(error: Exception) -> Refused:
    """Any exception as an answer. Only errors that the client can mend are explained; the log has
    the others."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, DataError):
        return Refused(400, without_paths(error.reason), without_paths(error.hint))
    if isinstance(error, ConfigError):
        return Refused(400, without_paths(error.message), without_paths(error.hint))
    if isinstance(error, FusemixError):
        log.error("%s", error)
    else:
        log.error("a request failed", exc_info=error)
    return Refused(500, "The server failed to answer this.", "Its log says why.")


def without_paths(text: str) -> str:
    """A message without the paths in it."""
    return _PATH.sub("…", text)
