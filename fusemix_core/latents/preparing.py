"""One item decoded, one batch collated: what a thread or a process does ahead of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fusemix_core.data.media import medium
from fusemix_core.errors import DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

UNREADABLE = (DataError, OSError, ValueError)
"""The errors of a bad item. Anything else is a fault of the program."""

BEHIND = 10
"""By how much threads and processes are nicer that decode beside an encoder on the same cores."""


@dataclass
class Collated:
    """A batch for the encoder: `batch` of the items `index`; `cut` of them were too long. `bad`:
    items that can't be collated, index → reason."""

    index: list[int]
    batch: Any
    cut: int = 0
    bad: dict[int, str] = field(default_factory=dict)


@dataclass
class Decoded:
    """An item in memory, or why it can't be (`reason`); `note` is told with those of others.

    `length` is what `Medium.length` says. `place` is the process that has the value, None if it is
    this one.
    """

    index: int
    value: Any = None
    bytes: int = 0
    reason: str = ""
    note: str = ""
    length: int = 0
    place: Any = None


class Source(Protocol):
    """What is encoded: `Items` of a dataset, or what a user gave in a list."""

    def load(self, i: int, sample_rate: int | None = None) -> Any:
        """Item i as the encoder's `collate` takes it."""

    def describe(self, i: int) -> str:
        """Item i as messages name it."""


@runtime_checkable
class Selectable(Source, Protocol):
    """A source of which some items can be sent to another process."""

    def select(self, index: np.ndarray) -> Selectable:
        """The items `index` only, in that order."""
        ...


Rejects = Callable[[int, Exception], None]
"""Called with the index of an item that can't be encoded, and why; what it raises ends the work."""


class Preparer:
    """Decodes and collates for one encoder.

    Args:
        spec: of the encoder.
        encoder: whose `collate` is used; it needs no weights.
        reject: called for each bad item.
    """

    def __init__(self, spec: EncoderSpec, encoder: Encoder, reject: Rejects | None = None) -> None:
        self.spec, self.encoder, self._reject = spec, encoder, reject
        self.medium = medium(registry.settled(spec).takes)

    def decode(self, items: Source, at: int, index: int) -> Decoded:
        """The item `at` of `items`, which has the number `index` among all."""
        try:
            value = items.load(at, self.spec.sample_rate)
        except UNREADABLE as error:
            return Decoded(index, reason=self._rejected(index, error))
        length = self.medium.length(value, self.spec)
        return Decoded(index, value, _size(value), "", self.medium.note(value), length)

    def collate(self, group: Sequence[Decoded]) -> Collated:
        """A batch of the group, without the items that alone make `collate` fail."""
        try:
            return self._collated(group)
        except UNREADABLE:
            good, bad = [], {}
            for item in group:
                try:
                    self.encoder.collate([item.value])
                    good.append(item)
                except UNREADABLE as fault:
                    bad[item.index] = self._rejected(item.index, fault)
            if not bad:
                raise
            collated = self._collated(good)
            collated.bad = bad
            return collated

    def _collated(self, group: Sequence[Decoded]) -> Collated:
        if not group:
            return Collated([], None)
        batch, cut = self.encoder.collated([item.value for item in group])
        return Collated([item.index for item in group], batch, cut)

    def _rejected(self, i: int, error: Exception) -> str:
        """Why an item is left out."""
        if self._reject is not None:
            self._reject(i, error)
        return error.reason if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


def _size(value: Any) -> int:
    """Bytes of a decoded item: image, waveform or array; texts and paths count for nothing."""
    if hasattr(value, "getbands"):
        return value.width * value.height * len(value.getbands())
    return getattr(getattr(value, "samples", value), "nbytes", 0)
