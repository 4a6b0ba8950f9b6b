"""HTTP with patience: retries, back-off, the server's own Retry-After, a limit of requests."""

from __future__ import annotations

import email.utils
import os
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from fusemix_api.address import Address
from fusemix_core.errors import ConfigError, ContractError, FusemixError

ATTEMPTS = 8
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before the second attempt, doubled for each one after it up to the longest."""
LONGEST_RETRY_AFTER = 300.0
"""A server that asks for more patience than this is taken to refuse."""
TIMEOUT = httpx.Timeout(60, connect=10)
TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504, 529}
RATE = "FUSEMIX_API_REQUESTS_PER_MINUTE"
KEPT = "What was finished is kept: run the same command again to go on."


class Client:
    """Posts JSON to one server; safe to use from several threads.

    The key is read from the environment for each request, and is nowhere else. `transport`
    replaces the network (tests, miniatures).
    """

    def __init__(self, address: Address, transport: httpx.BaseTransport | None = None) -> None:
        self.address = address
        self._http = httpx.Client(timeout=TIMEOUT, transport=transport)
        self._pace = _Pace(_requests_per_minute())
        self._stopped = threading.Event()
        self._answered = False

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The server's answer, parsed.

        Tries again after timeouts, broken connections, 429 and 5xx. Raises ConfigError for what
        the server refuses, ContractError for an answer that is not JSON, and FusemixError where it
        can't be reached or fails too often.
        """
        url, failure = self.address.url + path, ""
        for attempt in range(ATTEMPTS):
            self._pace.wait(self._stopped)
            if self._stopped.is_set():
                break
            try:
                answer = self._http.post(url, json=body, headers=self._headers())
            except httpx.ConnectError as error:
                if not self._answered:  # nobody there is no passing trouble
                    raise self._unreachable(error) from error
                failure, delay = _said(error), _delay(attempt)
            except httpx.TransportError as error:
                failure, delay = _said(error), _delay(attempt)
            else:
                self._answered = True
                if answer.is_success:
                    return self._parsed(answer)
                failure, delay = self._message(answer), _delay(attempt)
                asked = retry_after(answer.headers)
                if not _transient(answer) or (asked or 0) > LONGEST_RETRY_AFTER:
                    raise self._refused(answer)
                delay = max(delay, asked or 0)
            if attempt + 1 < ATTEMPTS:
                self._stopped.wait(delay)
        raise FusemixError(
            f"{self.address.url} failed {ATTEMPTS} times, at last so: {failure}",
            f"{KEPT} Fewer requests a minute: {RATE}=60",
        )

    def stop(self) -> None:
        """Let every thread that waits for its next attempt give up."""
        self._stopped.set()

    def restart(self) -> None:
        """Take back `stop`."""
        self._stopped.clear()

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _key(self) -> str:
        variable = self.address.key_variable
        key = os.environ.get(variable, "").strip()
        if not (key.isascii() and (key.isprintable())):
            raise ConfigError(
                f"The environment variable {variable} contains something that can't be a key.",
                "A key is one line of plain letters, digits and signs: set it again.",
            )
        return key

    def _redacted(self, text: str) -> str:
        """What a server said, without the key should it repeat it."""
        key = self._key()
        return text.replace(key, "…") if key else text

    def _parsed(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise ContractError(
                f"The server {self.address.url}", "JSON", repr(self._redacted(answer.text)[:80])
            ) from error

    def _message(self, answer: httpx.Response) -> str:
        """Status and message of a refusal, without the key should the server repeat it."""
        try:
            said = answer.json()
        except ValueError:
            said = answer.text
        for name in ("error", "message", "detail"):
            if isinstance(said, Mapping) and name in said:
                said = said[name]
        text = self._redacted(" ".join(str(said).split()))
        return f"{answer.status_code} {answer.reason_phrase}: {text[:400]}".rstrip(": ")

    def _refused(self, answer: httpx.Response) -> ConfigError:
        variable = self.address.key_variable
        hints = {
            401: f"The key is read from the environment variable {variable}.",
            403: f"The key is read from the environment variable {variable}.",
            404: f"Is '{self.address.model}' the model's name there, and does the address end as "
            "the server's documentation says (often /v1)?",
            429: f"{KEPT} Your account with the provider has its limits, too.",
        }
        return ConfigError(
            f"{self.address.url} refused the request: {self._message(answer)}",
            hints.get(answer.status_code, KEPT),
        )

    def _unreachable(self, error: Exception) -> FusemixError:
        return FusemixError(
            f"{self.address.url} can't be reached: {_said(error)}.",
            "Is the server running, and is this its address?",
        )


class _Pace:
    """Lets requests start at even intervals, so many a minute; None for as many as come."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stopped: threading.Event) -> None:
        if not self._interval:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        stopped.wait(start - now)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the header Retry-After: a number, or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _transient(answer: httpx.Response) -> bool:
    """Whether trying again may help: not where an account's money is used up."""
    return answer.status_code in TRANSIENT and "insufficient_quota" not in answer.text


def _delay(attempt: int) -> float:
    """Seconds before the next attempt, at random in the upper half of what doubling gives."""
    most = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
    return random.SystemRandom().uniform(most / 2, most)


def _requests_per_minute() -> float | None:
    value = os.environ.get(RATE, "").strip()
    if not value:
        return None
    try:
        if (rate := float(value)) > 0:
            return rate
    except ValueError:
        pass
    raise ConfigError(f"{RATE} is '{value}'.", "It is a number of requests, such as 500.")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
