"""What a process of `Decoders` runs: it decodes items, keeps them, and collates batches of them."""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from fusemix_core.allocator import keep_freed_memory
from fusemix_core.latents.child import Line, joined, packed_error
from fusemix_core.latents.cutting import BATCH_BYTES
from fusemix_core.latents.packing import Shared, pack
from fusemix_core.latents.preparing import BEHIND, Decoded, Preparer


def main(arguments: Sequence[str]) -> None:
    """Serve the parent until it ends. `arguments` are those of a `Child`."""
    torch.set_num_threads(1)
    keep_freed_memory()
    line, messages = joined(arguments[0])
    try:
        spec, encoder, behind = pickle.loads(next(messages)[0])  # noqa: S301
        if behind:
            os.nice(BEHIND)
        decoder = Decoder(Preparer(spec, encoder), line, [Shared(int(n)) for n in arguments[1:]])
    except Exception as error:  # what the user's classes need may be missing here
        line.send("failed", f"{type(error).__name__}: {error}")
        return
    threading.Thread(target=_listen, args=(decoder, messages), daemon=True).start()
    line.send("ready")
    decoder.run()


def _listen(decoder: Decoder, messages: Iterator[tuple]) -> None:
    for message in messages:
        decoder.told(message)
    os._exit(0)  # the parent is gone, whatever is being decoded


class Decoder:
    """Decodes items and collates batches as the parent asks. Batches come first.

    It decodes no further while it has as many bytes as make a batch complete: then the parent has
    all that it needs for the next one.
    """

    def __init__(self, preparer: Preparer, line: Line, memory: Sequence[Shared]) -> None:
        self.preparer, self.line, self.memory = preparer, line, memory
        self._free = deque(range(len(memory)))
        self._batches: deque[tuple] = deque()
        self._items: deque[tuple[int, Any, int]] = deque()  # index, where it is in a source
        self._held: dict[int, Decoded] = {}
        self._bytes = 0
        self._changed = threading.Condition()

    def told(self, message: tuple) -> None:
        """Take in a message: `decode`, `collate`, `drop` items, or `free` shared memory."""
        kind, *rest = message
        with self._changed:
            if kind == "decode":
                index, items = rest
                self._items += [(i, items, at) for at, i in enumerate(index)]
            elif kind == "collate":
                self._batches.append(tuple(rest))
            elif kind == "drop":
                self._drop(rest[0])
            else:
                self._free.append(rest[0])
            self._changed.notify()

    def run(self) -> None:
        """For ever."""
        while True:
            with self._changed:
                self._changed.wait_for(self._something_to_do)
                if self._batches and self._free:
                    work = partial(self._collate, *self._batches.popleft())
                else:
                    work = partial(self._decode, *self._items.popleft())
            work()

    def _something_to_do(self) -> bool:
        ready = self._batches and self._free
        return bool(ready or (self._items and self._bytes < BATCH_BYTES))

    def _decode(self, index: int, items: Any, at: int) -> None:
        try:
            item = self.preparer.decode(items, at, index)
        except Exception as error:
            self.line.send("fault", None, index, packed_error(error))
            return
        if not item.reason:
            with self._changed:
                self._held[index] = item
                self._bytes += item.bytes
        self.line.send("decoded", replace(item, value=None))

    def _collate(
        self, number: int, index: Sequence[int], missing: Sequence[int], items: Any, tried: Any
    ) -> None:
        """A batch of the items `index`. Those in `missing` are not here: `items` has them. After a
        process ended by it, they are tried one by one first, but for those that were `tried`."""
        self.line.send("begun", number)
        try:
            if tried is not None:
                for i in index:
                    if i not in tried:
                        self.line.send("trying", number, i)
                        self._try_out(self._found([i], missing, items))
            found = self._found(index, missing, items)
            collated = self.preparer.collate([item for item in found if not item.reason])
            collated.bad |= {item.index: item.reason for item in found if item.reason}
            slot = self._free.popleft()
            text, size = pack(collated.batch, self.memory[slot])
        except Exception as error:
            self.line.send("fault", number, None, packed_error(error))
        else:
            collated.batch = None
            self.line.send("batch", number, slot, text, size, collated)
        with self._changed:
            self._drop(index)

    def _found(self, index: Sequence[int], missing: Sequence[int], items: Any) -> list[Decoded]:
        place = {i: at for at, i in enumerate(missing)}
        return [self._held.get(i) or self.preparer.decode(items, place[i], i) for i in index]

    def _try_out(self, found: list[Decoded]) -> None:
        if not found[0].reason:
            self.preparer.collate(found)

    def _drop(self, index: Sequence[int]) -> None:
        for i in index:
            if item := self._held.pop(i, None):
                self._bytes -= item.bytes
