"""From items to collated batches, decoded and collated in threads ahead of the encoder.

Pillow, soundfile, soxr and tokenizers let go of the interpreter's lock, so threads keep all cores
at work without a second copy of anything. What is held ahead is bounded in bytes.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self

from fusemix_core.data.media import medium
from fusemix_core.errors import DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.sharing import locks_of
from fusemix_core.latents.transfer import pinned
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

UNREADABLE = (DataError, OSError, ValueError)
"""What a bad item raises. Anything else is a fault of the program."""

_HELD_AHEAD = 512 << 20
_BATCH_BYTES = 256 << 20
SORT_BATCHES = 8


@dataclass(frozen=True)
class BatchSize:
    """How many items make a batch: at most `items`, and only so many that padded to the longest
    they are not longer than `length` (characters, samples). With `stretch`, more than `items` where
    they are short."""

    items: int
    length: int | None = None
    stretch: bool = False

    def cut(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Slices of items of these lengths, longest first where `length` counts."""
        at = 0
        while at < len(lengths):
            count = self.items
            if self.length:
                fitting = max(1, self.length // max(1, lengths[at]))
                count = fitting if self.stretch else min(fitting, count)
            yield slice(at, at + count)
            at += count


@dataclass
class Collated:
    """A batch for the encoder: `batch` of the items `index`; `cut` of them were too long."""

    index: list[int]
    batch: Any
    cut: int = 0


@dataclass
class Decoded:
    """An item in memory, or why it can't be (`reason`); `note` is told with those of others."""

    index: int
    value: Any = None
    bytes: int = 0
    reason: str = ""
    note: str = ""


class Source(Protocol):
    """What is encoded: `Items` of a dataset, or what a user gave in a list."""

    def load(self, i: int, sample_rate: int | None = None) -> Any:
        """Item i as the encoder's `collate` takes it."""

    def describe(self, i: int) -> str:
        """Item i as messages name it."""


Rejects = Callable[[int, Exception], None]
"""Called with the index of an item that can't be encoded, and why; what it raises ends the work."""


class Pipeline:
    """Decodes and collates `items` for one encoder; use as a context manager.

    Items that can't be decoded or collated are left out and noted in `bad`, index → reason, unless
    `reject` raises. `notes` counts what media say of the others (`Medium.note`). With `pin` batches
    are in memory that a GPU can read.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        items: Source,
        encoder: Encoder,
        workers: int | None = None,
        reject: Rejects | None = None,
        pin: bool = False,
    ) -> None:
        self._pin = pin
        self.spec, self.items, self.encoder = spec, items, encoder
        self.medium = medium(registry.settled(spec).takes)
        self.bad: dict[int, str] = {}
        self.notes: Counter[str] = Counter()
        self._reject = reject
        self.workers = workers or default_workers()
        self._decoding = ThreadPoolExecutor(self.workers, "fusemix-decode")
        # Tokenizers use all cores by themselves and can't be borrowed by two threads at once.
        self._collators = 1 if self.medium.inline else self.workers
        self._collating = ThreadPoolExecutor(self._collators, "fusemix-collate")
        self._ready = self._ready_bytes = 0  # decoded, not yet taken
        self._all = self._all_bytes = 0  # decoded ever
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        for pool in (self._decoding, self._collating):
            pool.shutdown(wait=True, cancel_futures=True)

    def batches(
        self, wanted: Iterable[int], size: BatchSize, group_size: int
    ) -> Iterator[tuple[int, Collated]]:
        """(group number, batch) of the wanted items.

        A group is the next `group_size` items that can be decoded, so that what comes after a bad
        item is cut the same whether or not the run was stopped in between. Batches never cross a
        group; within one, texts and clips of like length go together.
        """
        ahead: deque[tuple[int, Future[Collated]]] = deque()
        for group, items in self._cut(wanted, size, group_size):
            ahead.append((group, self._collating.submit(self._collate, items)))
            if len(ahead) > self._collators:
                group, future = ahead.popleft()
                yield group, future.result()
        for group, future in ahead:
            yield group, future.result()

    def collate(self, index: Sequence[int]) -> Collated:
        """One batch of these items now, decoded again (after the encoder ran out of memory)."""
        decoded = [self._decode(i) for i in index]
        return self._collating.submit(self._collate, [d for d in decoded if not d.reason]).result()

    # -- decoding --------------------------------------------------------------------------------

    def _decoded(self, wanted: Iterable[int], ahead: int) -> Iterator[Decoded]:
        """The items that can be decoded, in order."""
        if self.medium.costly:
            found = self._decoded_ahead(iter(wanted), ahead)
        else:  # nothing to decode: a thread would cost more
            found = (self._decode(i) for i in wanted)
        for item in found:
            if item.reason:
                self.bad[item.index] = item.reason
            else:
                if item.note:
                    self.notes[item.note] += 1
                yield item

    def _decoded_ahead(self, wanted: Iterator[int], ahead: int) -> Iterator[Decoded]:
        queue: deque[Future[Decoded]] = deque()
        while True:
            while len(queue) < ahead and (len(queue) < self.workers or self._room(len(queue))):
                if (i := next(wanted, None)) is None:
                    break
                queue.append(self._decoding.submit(self._decode_held, i))
            if not queue:
                return
            item = queue.popleft().result()
            with self._lock:
                self._ready_bytes -= item.bytes
                self._ready -= 1
            yield item

    def _room(self, queued: int) -> bool:
        """Whether one more may be decoded ahead; those under way count as the mean of all."""
        with self._lock:
            mean = self._all_bytes / self._all if self._all else _HELD_AHEAD
            return self._ready_bytes + (queued - self._ready) * mean < _HELD_AHEAD

    def _decode_held(self, i: int) -> Decoded:
        item = self._decode(i)
        with self._lock:
            self._ready, self._ready_bytes = self._ready + 1, self._ready_bytes + item.bytes
            self._all, self._all_bytes = self._all + 1, self._all_bytes + item.bytes
        return item

    def _decode(self, i: int) -> Decoded:
        try:
            value = self.items.load(i, self.spec.sample_rate)
        except UNREADABLE as error:
            return Decoded(i, reason=self._rejected(i, error))
        return Decoded(i, value, _size(value), note=self.medium.note(value))

    def _rejected(self, i: int, error: Exception) -> str:
        """Why an item is left out."""
        if self._reject is not None:
            self._reject(i, error)
        return error.reason if isinstance(error, DataError) else f"{type(error).__name__}: {error}"

    # -- batches ---------------------------------------------------------------------------------

    def _cut(
        self, wanted: Iterable[int], size: BatchSize, group_size: int
    ) -> Iterator[tuple[int, list[Decoded]]]:
        """(group number, items of a batch), as many as `size` says, fewer if they are huge."""
        window = size.items
        if self.medium.usual_length(self.spec):  # worth sorting; what is inline is small
            window = group_size if self.medium.inline else size.items * SORT_BATCHES
        waiting: list[Decoded] = []
        group = seen = held = 0
        for item in self._decoded(wanted, ahead=max(window, 2 * size.items)):
            waiting.append(item)
            held += item.bytes
            group, seen = seen // group_size, seen + 1
            if len(waiting) == window or held >= _BATCH_BYTES or seen % group_size == 0:
                yield from ((group, b) for b in self._like_lengths(waiting, size, window))
                waiting, held = [], 0
        yield from ((group, b) for b in self._like_lengths(waiting, size, window))

    def _like_lengths(
        self, waiting: list[Decoded], size: BatchSize, window: int
    ) -> Iterator[list[Decoded]]:
        """Batches of the waiting items; where several fill the window, longest first, so that
        little is padding and want of memory shows at once."""
        lengths = [self.medium.length(item.value, self.spec) for item in waiting]
        if window > size.items:
            order = sorted(range(len(waiting)), key=lambda i: -lengths[i])
            waiting, lengths = [waiting[i] for i in order], [lengths[i] for i in order]
        yield from (waiting[part] for part in size.cut(lengths))

    def _collate(self, group: list[Decoded]) -> Collated:
        """A batch of the group, without the items that alone make `collate` fail."""
        # Tokenizers can't be borrowed by two threads at once, also not by those of two pipelines.
        lock = locks_of(self.encoder).collate if self._collators == 1 else nullcontext()
        with lock:
            return self._readable(group)

    def _readable(self, group: list[Decoded]) -> Collated:
        try:
            return self._collated(group)
        except UNREADABLE:
            good = []
            for item in group:
                try:
                    self.encoder.collate([item.value])
                    good.append(item)
                except UNREADABLE as fault:
                    self.bad[item.index] = self._rejected(item.index, fault)
            if len(good) == len(group):
                raise
            return self._collated(good)

    def _collated(self, group: list[Decoded]) -> Collated:
        if not group:
            return Collated([], None)
        values = [item.value for item in group]
        batch, cut = self.encoder.collated(values)
        batch = pinned(batch) if self._pin else batch
        return Collated([item.index for item in group], batch, cut)


def default_workers() -> int:
    """As many threads as this process may use cores, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(16, cores or 1)


def _size(value: Any) -> int:
    """Bytes of a decoded item: image, waveform or array; texts and paths count for nothing."""
    if hasattr(value, "getbands"):
        return value.width * value.height * len(value.getbands())
    return getattr(getattr(value, "samples", value), "nbytes", 0)
