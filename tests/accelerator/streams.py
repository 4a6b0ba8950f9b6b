"""Streams of the emulated device: what is made on one is used on another only after an event."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class Stream:
    """Counts the tensors that are made on it, and how many of them the main stream awaits."""

    def __init__(self, device: Any = None) -> None:
        self.made = self.awaited = 0

    def record_event(self) -> Event:
        return Event(self, self.made)

    def wait_stream(self, stream: Stream) -> None:
        stream.awaited = max(stream.awaited, stream.made)

    def wait_event(self, event: Event) -> None:
        event.stream.awaited = max(event.stream.awaited, event.made)


@dataclass(frozen=True)
class Event:
    """The first `made` tensors of a stream are ready."""

    stream: Stream
    made: int


class Done:
    """What torch.cuda.Event is to a host that waits for it."""

    def record(self, stream: Stream) -> None:
        """Nothing is computed later here."""

    def synchronize(self) -> None:
        """What was copied is there."""


MAIN = Stream()
_local = threading.local()


def current(device: Any = None) -> Stream:
    return getattr(_local, "stream", MAIN)


@contextlib.contextmanager
def on(stream: Stream) -> Iterator[None]:
    before, _local.stream = current(), stream
    try:
        yield
    finally:
        _local.stream = before


def mark(tensor: Any) -> None:
    """Remember on which stream a new tensor was made."""
    stream = current()
    if stream is not MAIN:
        tensor.origin = stream, stream.made
        stream.made += 1


def check(tensor: Any) -> None:
    """Raise if a tensor of another stream is used before its work is awaited."""
    stream, number = getattr(tensor, "origin", (MAIN, 0))
    if stream not in (MAIN, current()) and number >= stream.awaited:
        raise RuntimeError("A tensor of another stream is used before it is ready.")
