"""From items to collated batches, decoded and collated ahead of the encoder.

In threads: Pillow, soundfile, soxr and tokenizers let go of the interpreter's lock, so threads keep
some cores at work without a second copy of anything. If that is too slow for the encoder,
processes take over (see `decoders`). Items held ahead are bounded in bytes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import Self

from fusemix_core.interfaces import Encoder
from fusemix_core.latents.cutting import SORT_BATCHES, BatchSize, Cutter
from fusemix_core.latents.decoders import Decoders
from fusemix_core.latents.preparing import BEHIND, Collated, Decoded, Preparer, Rejects, Source
from fusemix_core.latents.sharing import locks_of
from fusemix_core.latents.transfer import pinned
from fusemix_core.specs import EncoderSpec

_HELD_AHEAD = 512 << 20
CHUNKS_AHEAD = 2
"""Windows of items that each process has before it, or decoded."""


class Pipeline:
    """Decodes and collates `items` for one encoder; use as a context manager.

    Items that can't be decoded or collated are left out and noted in `bad`, index → reason, unless
    `reject` raises. `notes` counts what media say of the others (`Medium.note`). With `pin` batches
    are in memory that a GPU can read. Threads that work `behind` the encoder leave it the cores
    that it wants: each of its operations waits for the slowest of its own threads.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        items: Source,
        encoder: Encoder,
        workers: int | None = None,
        reject: Rejects | None = None,
        pin: bool = False,
        behind: bool = False,
    ) -> None:
        self._pin, self._behind = pin, behind
        self.spec, self.items, self.encoder = spec, items, encoder
        self._preparer = Preparer(spec, encoder, reject)
        self.medium = self._preparer.medium
        self.bad: dict[int, str] = {}
        self.notes: Counter[str] = Counter()
        self.workers = workers or default_workers()
        self.decoders: Decoders | None = None
        first = _step_back if behind else None
        self._decoding = ThreadPoolExecutor(self.workers, "fusemix-decode", first)
        # Tokenizers use all cores by themselves and can't be borrowed by two threads at once.
        self._collators = 1 if self.medium.inline else self.workers
        self._collating = ThreadPoolExecutor(self._collators, "fusemix-collate", first)
        self._ready = self._ready_bytes = 0  # decoded, not yet taken
        self._all = self._all_bytes = 0  # decoded ever
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and the processes."""
        if self.decoders is not None:
            self.decoders.close()
        for pool in (self._decoding, self._collating):
            pool.shutdown(wait=True, cancel_futures=True)

    def start_processes(self, count: int) -> Decoders:
        """Start so many, which decode and collate from when they are ready."""
        self.decoders = Decoders(
            self.spec, self.items, self.encoder, count, self._pin, self._behind
        )
        return self.decoders

    def batches(
        self, wanted: Iterable[int], size: BatchSize, group_size: int
    ) -> Generator[tuple[int, Collated]]:
        """(group number, batch) of the wanted items, cut by a `Cutter`."""
        window = size.items
        if self.medium.usual_length(self.spec):  # worth sorting; what is inline is small
            window = group_size if self.medium.inline else size.items * SORT_BATCHES
        cutter = Cutter(size, window, group_size)
        ahead: deque[tuple[int, Future[Collated]]] = deque()
        for group, items in cutter.batches(self._decoded(wanted, cutter)):
            ahead.append((group, self._collated(items)))
            if len(ahead) > max(self._collators, self._remote.count if self._remote else 0):
                yield self._finished(*ahead.popleft())
        while ahead:
            yield self._finished(*ahead.popleft())

    def collate(self, index: Sequence[int]) -> Collated:
        """One batch of these items now, decoded again (after the encoder ran out of memory)."""
        decoded = [self._decode(i) for i in index]
        good = [item for item in decoded if not item.reason]
        collated = self._collating.submit(self._collate, good).result()
        self.bad |= collated.bad | {d.index: d.reason for d in decoded if d.reason}
        return collated

    @property
    def _remote(self) -> Decoders | None:
        """The processes, if they decode what comes next."""
        return self.decoders if self.decoders is not None and self.decoders.ready else None

    # -- decoding --------------------------------------------------------------------------------

    def _decoded(self, wanted: Iterable[int], cutter: Cutter) -> Iterator[Decoded]:
        """The items that can be decoded, in order."""
        if self.medium.costly:
            found = self._decoded_ahead(iter(wanted), cutter)
        else:  # nothing to decode: a thread would cost more
            found = (self._decode(i) for i in wanted)
        for item in found:
            if item.reason:
                self.bad[item.index] = item.reason
            else:
                if item.note:
                    self.notes[item.note] += 1
                yield item

    def _decoded_ahead(self, wanted: Iterator[int], cutter: Cutter) -> Iterator[Decoded]:
        queue: deque[Future[Decoded]] = deque()
        most = max(cutter.window, 2 * cutter.size.items)
        while True:
            if (remote := self._remote) is not None:
                self._hand_out(remote, queue, wanted, cutter)
            else:
                while len(queue) < most and (len(queue) < self.workers or self._room(len(queue))):
                    if (i := next(wanted, None)) is None:
                        break
                    queue.append(self._decoding.submit(self._decode_held, i))
            if not queue:
                return
            item = queue.popleft().result()
            if item.place is None:
                with self._lock:
                    self._ready_bytes -= item.bytes
                    self._ready -= 1
            yield item

    def _hand_out(
        self,
        decoders: Decoders,
        queue: deque[Future[Decoded]],
        wanted: Iterator[int],
        cutter: Cutter,
    ) -> None:
        """Give items to the processes, by the window: a batch whose items one process has is
        collated there."""
        while len(queue) < CHUNKS_AHEAD * decoders.count * cutter.window:
            chunk = list(islice(wanted, cutter.to_boundary(len(queue))))
            if not chunk:
                return
            queue.extend(decoders.decode(chunk))

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
        return self._preparer.decode(self.items, i, i)

    # -- batches ---------------------------------------------------------------------------------

    def _collated(self, group: list[Decoded]) -> Future[Collated]:
        if self.decoders is not None and all(item.place is not None for item in group):
            return self.decoders.collate(group)
        return self._collating.submit(self._collate, group)

    def _collate(self, group: list[Decoded]) -> Collated:
        # What a process has stays there: at the change from threads to processes a batch has both.
        elsewhere = {d.index: self._decode(d.index) for d in group if d.place is not None}
        here = [elsewhere.get(item.index, item) for item in group]
        # Tokenizers can't be borrowed by two threads at once, also not by those of two pipelines.
        lock = locks_of(self.encoder).collate if self._collators == 1 else nullcontext()
        with lock:
            collated = self._preparer.collate([item for item in here if not item.reason])
        collated.bad |= {item.index: item.reason for item in here if item.reason}
        if self._pin:
            collated.batch = pinned(collated.batch)
        return collated

    def _finished(self, group: int, future: Future[Collated]) -> tuple[int, Collated]:
        collated = future.result()
        self.bad |= collated.bad
        return group, collated


def _step_back() -> None:
    """Lower the priority of this thread; only Linux has one for each."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + BEHIND)


def default_workers(share: int = 1) -> int:
    """As many threads as this process may use cores, at most 16, if `share` of them decode."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(16, max(1, (cores or 1) // share))
