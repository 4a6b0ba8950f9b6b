"""The limits of a server: who may ask, how much at once, and how large a request may be."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from fusemix_core.errors import ConfigError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large one request may be. All are checked before anything is decoded.

    Attributes:
        body: bytes of a request.
        texts: texts in a request, or other items that need no decoding.
        media: images and sounds in a request.
        characters: of one text.
        pixels: of all images of a request together.
        seconds: of all sounds of a request together.
        samples: per second of sound, at most: a sound counts as if it had this sample rate.
        hits: results of a search.
    """

    body: int = 20 << 20
    texts: int = 2048
    media: int = 64
    characters: int = 100_000
    pixels: int = 64_000_000
    seconds: float = 600.0
    samples: int = 96_000
    hits: int = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server runs.

    Attributes:
        host: the address that it listens on. Any but loopback needs a token.
        port: 0 takes a free one.
        token: what a client must send as `Authorization: Bearer TOKEN`; "" asks for none.
        hosts: further names by which the server may be addressed.
        limits: how large a request may be.
        in_flight: requests that are answered at once; further ones get 429.
        queued: items that wait for an encoder; a request beyond that gets 429.
        decoded: bytes of decoded images and sounds held at once; a request beyond that gets 429.
        batch: items that are encoded at once.
        wait: seconds that a batch waits for further requests.
        timeout: seconds in which a request's body must arrive.
        grace: seconds that running requests have after SIGTERM.

    Raises:
        ConfigError: the host is not loopback, and there is no token.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    in_flight: int = 128
    queued: int = 8192
    decoded: int = 1 << 30
    batch: int = 64
    wait: float = 0.004
    timeout: float = 30.0
    grace: float = 10.0

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.token:
            raise ConfigError(
                f"Serving on {self.host} needs a token, as other machines can reach it.",
                f"Add --token, such as this new one: --token {secrets.token_urlsafe(24)}",
            )
        if self.token and (len(self.token) < 16 or not self.token.isascii()):
            raise ConfigError(
                "The token must have 16 ASCII characters or more.",
                f"A new one: --token {secrets.token_urlsafe(24)}",
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK
