"""`ApiEncoder`: texts through a server's endpoint, several requests in flight."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fusemix_api.address import Address, parse_address
from fusemix_api.client import Client
from fusemix_api.protocols import protocol_of, read_rows
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec

IN_FLIGHT = 8
FEWEST_TEXTS = 16
"""A request is not made smaller than this only to have more of them in flight."""
MOST_CHARACTERS = 200_000
"""In a request, unless one text alone has more; OpenAI takes 300,000 tokens in all."""


class ApiEncoder(Encoder):
    """Texts through the model at `spec.weights` (`URL#MODEL`).

    A text is sent behind `spec.prompt`. One that is longer than `spec.max_tokens` is cut, by the
    server if it does that, else here at two bytes per token, which is sure to be short enough for
    nearly all writing. A server that refuses a text nevertheless ends the run with its message.
    """

    def __init__(self, spec: EncoderSpec, address: Address, client: Client) -> None:
        self.spec, self.address, self.client = spec, address, client
        self.protocol = protocol_of(spec, address.protocol)
        self.tokens = self.requests = 0
        self._lock = threading.Lock()

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """Asks the server nothing yet. Raises ConfigError where a key is missing."""
        spec.check_environment()
        address = parse_address(spec.weights)
        return cls(spec, address, Client(address))

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """The same, with a server inside this process that embeds by hashing: no network."""
        from fusemix_api.tiny import DIM, serve

        address = Address(parse_address(spec.weights).protocol, "http://tiny.invalid", "tiny")
        options = {k: v for k, v in spec.options.items() if k != "dimensions"}
        spec = replace(spec, dim=DIM, weights="", environment=(), price=0.0, options=options)
        return cls(spec, address, Client(address, serve()))

    def collate(self, items: Sequence[str]) -> list[str]:
        """The texts as they are sent."""
        return [self._sent(item) for item in items]

    def encode(self, batch: Sequence[str], view: str = "pooled") -> Tensor:
        """float32 `[n, d]` on the CPU, of texts that `collate` made."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if not batch:
            return torch.empty(0, self.spec.dim or self.encode([" "]).shape[1])
        self.client.restart()
        with ThreadPoolExecutor(IN_FLIGHT, "fusemix-api") as pool:
            asked = [pool.submit(self._embed, group) for group in self._requests(batch)]
            try:
                wait(asked, return_when=FIRST_EXCEPTION)
                failed = [a for a in asked if a.done() and a.exception()]
                rows = [a.result() for a in failed or asked]
            except BaseException:
                self.client.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return torch.from_numpy(np.concatenate(rows))

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the texts are cut; an estimate if the server does it."""
        return sum(
            self.protocol.is_cut(self.spec.prompt + item, self.spec.max_tokens) for item in items
        )

    def notes(self) -> list[str]:
        """What was used, and what that costs if the price is known."""
        if not self.requests:
            return []
        said = f"{self.spec.name} answered {self.requests:,} requests"
        if self.tokens:
            said += f" and counted {self.tokens:,} tokens"
        if self.spec.price and self.tokens:
            said += f": about US${self.tokens * self.spec.price / 1e6:,.4f}"
        return [f"{said}."]

    @property
    def weights_digest(self) -> str:
        """A digest of the address: what a server contains can't be seen."""
        return hashlib.sha256(str(self.address).encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("client", "_lock")}

    def _sent(self, item: str) -> str:
        if not isinstance(item, str):
            raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")
        # Servers refuse an empty text, and a space means the same.
        return self.protocol.cut(self.spec.prompt + item, self.spec.max_tokens) or " "

    def _requests(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """The texts in groups of one request each, in order."""
        most = min(self.protocol.most_texts, max(FEWEST_TEXTS, -(-len(texts) // IN_FLIGHT)))
        group: list[str] = []
        held = 0
        for text in texts:
            if group and (len(group) == most or held + len(text) > MOST_CHARACTERS):
                yield group
                group, held = [], 0
            group.append(text)
            held += len(text)
        yield group

    def _embed(self, texts: list[str]) -> np.ndarray:
        body = self.protocol.request(self.spec, self.address.model, texts)
        answer = self.client.post(self.protocol.path, body)
        where = f"The server {self.address.url}"
        rows = read_rows(self.protocol, answer, len(texts), self.spec.dim, where)
        with self._lock:
            self.requests += 1
            self.tokens += self.protocol.tokens(answer)
        return rows
