"""Processes that decode and collate, where the threads of one are too slow for an encoder.

Decoded items stay in the process that has them: a batch of them is collated there and comes back in
shared memory. The items of a batch are those that threads would have put in it.
"""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count as counting
from typing import Any

import numpy as np

from fusemix_core.errors import FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.child import Child, can_start, unpacked_error
from fusemix_core.latents.packing import Shared, unpack
from fusemix_core.latents.preparing import Collated, Decoded, Selectable, Source
from fusemix_core.specs import EncoderSpec

LIVES = 2
"""How many processes an item may end before it is left out: the first may have been killed."""
MOST_DEATHS = 50
_SLOTS = 2
"""Batches of a process that are in shared memory at once."""


@dataclass
class _Batch:
    """One that a process is to collate. `tried`: None, or after a process ended by it the items
    that were tried one by one since; `trying`: the one that is tried now."""

    number: int
    index: list[int]
    future: Future[Collated] = field(default_factory=Future)
    tried: set[int] | None = None
    trying: int | None = None
    bad: dict[int, str] = field(default_factory=dict)


class _Worker:
    """A process, and what it has to do."""

    def __init__(self, pool: Decoders) -> None:
        self.ready = self.gone = False
        self.items: dict[int, Future[Decoded]] = {}
        self.batches: dict[int, _Batch] = {}
        self.current: _Batch | None = None
        self.memory = [Shared() for _ in range(_SLOTS)]
        self.child = Child(
            "fusemix_core.latents.decoder",
            lambda message: pool._heard(self, *message),
            lambda: pool._ended(self),
            descriptors=[memory.descriptor for memory in self.memory],
        )

    @property
    def load(self) -> int:
        return len(self.items) + sum(len(batch.index) for batch in self.batches.values())

    def close(self) -> None:
        self.child.close()
        for memory in self.memory:
            memory.close()


class Decoders:
    """`count` processes for the items of one encoder. They take work from the start, but nobody
    should wait for them before they are `ready`.

    An item whose decoding ends its process is left out, with a reason. `failure` says why there are
    none, "" if there are.

    Args:
        spec: of the encoder.
        items: `Items`, or what has their `select`.
        encoder: whose `collate` is used; its weights stay here.
        count: how many.
        pin: batches are to be in memory that a GPU can read.
        behind: they leave the cores to an encoder that needs them, too.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        items: Source,
        encoder: Encoder,
        count: int,
        pin: bool = False,
        behind: bool = False,
    ) -> None:
        self.count, self.pin, self.failure = count, pin, ""
        self.name = spec.name
        self._lock = threading.RLock()
        self._settled = threading.Event()
        self._begun = self._closed = False
        self._deaths = 0
        self._died: Counter[int] = Counter()
        self._numbers = counting()
        self._workers: list[_Worker] = []
        try:
            if not (can_start() and isinstance(items, Selectable)):
                raise NotImplementedError("this system or these items don't allow it")
            self.items = items
            self._setup = pickle.dumps((spec, encoder, behind))
        except Exception as error:  # pickling raises anything
            self._fail(f"{type(error).__name__}: {error}")
            return
        with self._lock:
            for _ in range(count):
                self._workers.append(self._started())

    # -- asked by the pipeline -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether all processes have started. One that failed later fails what it has to do."""
        return self._settled.is_set() and self._begun

    def wait(self) -> bool:
        """Until they are ready, or have failed; whether they are ready."""
        self._settled.wait()
        return self.ready

    def decode(self, index: Sequence[int]) -> list[Future[Decoded]]:
        """These items by one process."""
        with self._lock:
            worker = min(self._workers, key=lambda w: w.load)
            futures: dict[int, Future[Decoded]] = {i: Future() for i in index}
            worker.items |= futures
            self._send_items(worker, list(index))
        return list(futures.values())

    def collate(self, group: Sequence[Decoded]) -> Future[Collated]:
        """A batch of decoded items, by the process that has most of them."""
        with self._lock:
            having = Counter(item.place for item in group if not item.place.gone)
            worker = having.most_common(1)[0][0] if having else min(self._workers, key=_load)
            batch = _Batch(next(self._numbers), [item.index for item in group])
            worker.batches[batch.number] = batch
            self._send_batch(worker, batch, [d.index for d in group if d.place is not worker])
            self.drop([item for item in group if item.place is not worker])
        return batch.future

    def drop(self, group: Sequence[Decoded]) -> None:
        """Have the processes forget items."""
        for worker in {item.place for item in group if item.place and not item.place.gone}:
            worker.child.send("drop", [item.index for item in group if item.place is worker])

    def close(self) -> None:
        """End the processes now."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()

    # -- inside ----------------------------------------------------------------------------------

    def _started(self) -> _Worker:
        worker = _Worker(self)
        worker.child.start()
        worker.child.send(self._setup)
        return worker

    def _send_items(self, worker: _Worker, index: list[int]) -> None:
        worker.child.send("decode", index, self._selected(index))

    def _send_batch(self, worker: _Worker, batch: _Batch, missing: list[int]) -> None:
        items = self._selected(missing) if missing else None
        worker.child.send("collate", batch.number, batch.index, missing, items, batch.tried)

    def _selected(self, index: list[int]) -> Any:
        return self.items.select(np.asarray(index, np.int64))

    def _fail(self, why: str) -> None:
        if self._settled.is_set():
            self._give_up(FusemixError(f"A process that decodes for {self.name} failed: {why}"))
            return
        self.failure = why
        self._settled.set()

    def _heard(self, worker: _Worker, kind: str, *rest: Any) -> None:
        """A message of a process, in its thread here. An error ends the work."""
        try:
            if kind == "batch":
                rest = self._fetched(worker, *rest)
            with self._lock:
                getattr(self, f"_note_{kind}")(worker, *rest)
        except Exception as error:
            with self._lock:
                self._give_up(error)

    def _fetched(
        self, worker: _Worker, number: int, slot: int, text: bytes, size: int, collated: Collated
    ) -> tuple[int, Collated]:
        collated.batch = unpack(text, size, worker.memory[slot], pin=self.pin)
        worker.child.send("free", slot)
        return number, collated

    def _note_ready(self, worker: _Worker) -> None:
        worker.ready = True
        if len(self._workers) == self.count and all(w.ready for w in self._workers):
            self._begun = True
            self._settled.set()

    def _note_failed(self, worker: _Worker, why: str) -> None:
        self._fail(why)

    def _note_decoded(self, worker: _Worker, item: Decoded) -> None:
        item.place = worker
        worker.items.pop(item.index).set_result(item)

    def _note_batch(self, worker: _Worker, number: int, collated: Collated) -> None:
        batch, worker.current = worker.batches.pop(number), None
        collated.bad |= batch.bad
        batch.future.set_result(collated)

    def _note_begun(self, worker: _Worker, number: int) -> None:
        worker.current = worker.batches[number]

    def _note_trying(self, worker: _Worker, number: int, index: int) -> None:
        batch = worker.batches[number]
        if batch.trying is not None and batch.tried is not None:
            batch.tried.add(batch.trying)
        batch.trying = index

    def _note_fault(
        self, worker: _Worker, number: int | None, index: int | None, error: bytes
    ) -> None:
        if number is not None:
            worker.current, future = None, worker.batches.pop(number).future
        else:
            assert index is not None  # the fault of a batch, or of an item
            future = worker.items.pop(index)
        future.set_exception(unpacked_error(error))

    def _ended(self, worker: _Worker) -> None:
        """A process ended: another one takes its place, without the item that ended two."""
        how = worker.child.how_it_ended()
        with self._lock:
            worker.gone = True
            if self._closed or self.failure:
                return
            if not self._settled.is_set():
                self._fail(f"a process ended as it began ({how})")
                return
            self._deaths += 1
            if self._deaths > MOST_DEATHS:
                self._give_up(self._too_many(how))
                return
            self._blame(worker, f"its decoder ended the process ({how})")
            other = self._workers[self._workers.index(worker)] = self._started()
            other.items, other.batches = worker.items, worker.batches
            if other.items:
                self._send_items(other, list(other.items))
            for batch in other.batches.values():
                self._send_batch(other, batch, batch.index)
        worker.close()

    def _blame(self, worker: _Worker, reason: str) -> None:
        """Note what a process did as it ended; an item that ended two is left out."""
        batch = worker.current
        if batch is not None and batch.tried is None:
            batch.tried = set()
            return
        suspect = batch.trying if batch is not None else next(iter(worker.items), None)
        if suspect is None:
            return
        self._died[suspect] += 1
        if self._died[suspect] >= LIVES:
            if batch is None:
                worker.items.pop(suspect).set_result(Decoded(suspect, reason=reason, place=worker))
            else:
                batch.index.remove(suspect)
                batch.bad[suspect] = reason
        if batch is not None:
            batch.trying = None

    def _too_many(self, how: str) -> FusemixError:
        return FusemixError(
            f"{self._deaths} processes that decode for {self.name} ended ({how}).",
            "Often it is a lack of memory: take fewer processes, or threads: --decode-processes 0. "
            "Finished shards are kept.",
        )

    def _give_up(self, error: BaseException) -> None:
        self.failure = self.failure or str(error)
        for worker in self._workers:
            for future in (*worker.items.values(), *(b.future for b in worker.batches.values())):
                if not future.done():
                    future.set_exception(error)


def _load(worker: _Worker) -> int:
    return worker.load
