"""Where a model is served: `URL#MODEL`, as it is in an encoder's name and in `spec.weights`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from fusemix_core.errors import ConfigError

EXAMPLE = "api:http://localhost:8000/v1#BAAI/bge-m3"
KEYS = {"api.openai.com": "OPENAI_API_KEY", "api.cohere.com": "COHERE_API_KEY"}
"""Hosts that answer to nobody without a key, and the variable in which their users keep it."""


@dataclass(frozen=True)
class Address:
    """A model on a server. `str()` of it is the form that `parse_address` reads, normalised."""

    protocol: str
    url: str
    model: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def needs_key(self) -> bool:
        return self.host in KEYS

    @property
    def key_variable(self) -> str:
        """The environment variable that holds this host's key. One a host, so that no name given
        as an encoder can make a key go to another server."""
        return KEYS.get(self.host) or "FUSEMIX_KEY_" + re.sub(r"\W", "_", self.host).upper()

    def __str__(self) -> str:
        scheme = "" if self.protocol == "openai" else f"{self.protocol}+"
        return f"{scheme}{self.url}#{quote(self.model, safe='/:+ ')}"


def parse_address(text: str) -> Address:
    """`http://HOST[:PORT][/PATH]#MODEL`, with `cohere+` before it for a server of that style.

    Raises ConfigError for anything else, and for an address that holds a password or a query: a
    name is saved and shown, so that no key may be in it.
    """
    form, _, fragment = text.strip().partition("#")
    protocol, plus, url = form.rpartition("+http")
    protocol, url = (protocol, f"http{url}") if plus else ("openai", form)
    hint = f"Write the server's address, # and the model: {EXAMPLE}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"'{form}' is not an address: {error}.", hint) from None
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            f"The address of {parts.hostname} contains a user, a password or a query.",
            "Names are saved with models. Put a key in the environment variable "
            + Address("openai", f"https://{parts.hostname}", "").key_variable
            + ".",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"'{text}' is not an address of a server.", hint)
    if protocol not in ("openai", "cohere"):
        raise ConfigError(
            f"'{protocol}' is not a protocol.", "There are cohere+ and, without it, OpenAI's."
        )
    model = unquote(fragment).strip()
    if not model:
        raise ConfigError(f"'{text}' names no model.", hint)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{host}:{port}" if port else host
    return Address(protocol, f"{parts.scheme}://{place}{parts.path.rstrip('/')}", model)
