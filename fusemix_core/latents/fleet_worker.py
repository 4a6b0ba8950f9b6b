"""What a process of `fleet` runs: one encoder on one device, which fills the store."""

from __future__ import annotations

import pickle
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fusemix_core.allocator import keep_freed_memory
from fusemix_core.latents.batches import batch_size_for
from fusemix_core.latents.child import Line, heeded, joined, packed_error
from fusemix_core.latents.encoding import ItemEncoder
from fusemix_core.latents.filling import Filling
from fusemix_core.latents.holding import Held

_TOLD_SECONDS = 0.2


def main(arguments: Sequence[str]) -> None:
    """Take blocks of items from the parent until there are none. `arguments` are those of a
    `Child`."""
    line, messages = joined(arguments[0])
    try:
        fill(line, heeded(messages))
    except BaseException as error:
        line.send("fault", packed_error(error))


def fill(line: Line, messages: Iterator[tuple]) -> None:
    """Encode what the parent gives, and report it."""
    spec, target, how, share = pickle.loads(next(messages)[0])  # noqa: S301
    (device,) = how.devices
    if device.type == "cpu":
        keep_freed_memory()
    items, batch = Given(line, messages), batch_size_for(spec, how.batch_size, device)
    with ItemEncoder(
        items,
        target.view,
        Held(spec, [device], how.dtype, None).get(),
        [device],
        batch,
        spec=spec,
        workers=how.workers,
        processes=how.processes,
    ) as encoder:
        filling = Filling(encoder, target, items, _Told(line))
        filling.run(items.wanted(), share)
        bad = {int(items.index[i]): why for i, why in encoder.bad.items()}
        line.send("done", bad, filling.tally())


class _Told:
    """Progress as messages, some a second."""

    def __init__(self, line: Line) -> None:
        self.line, self.last = line, 0.0

    def __call__(self, done: int, total: int) -> None:
        if (now := time.monotonic()) - self.last > _TOLD_SECONDS:
            self.last = now
            self.line.send("progress", done)


class Joined:
    """Parts of the items of one modality, one after another, as one `Source`."""

    def __init__(self, parts: Sequence[Any] = ()) -> None:
        self.starts: list[int] = []
        self.parts: list[Any] = []
        self.count = 0
        for part in parts:
            self.append(part)

    def append(self, part: Any) -> None:
        self.starts.append(self.count)
        self.parts.append(part)
        self.count += len(part)

    def load(self, i: int, sample_rate: int | None = None) -> Any:
        part, at = self._place(i)
        return part.load(at, sample_rate)

    def describe(self, i: int) -> str:
        part, at = self._place(i)
        return part.describe(at)

    def select(self, index: np.ndarray) -> Joined:
        """The items `index` only, in that order."""
        if not len(index):
            return Joined()
        number = np.searchsorted(self.starts, index, side="right") - 1
        runs = np.split(np.arange(len(index)), np.flatnonzero(np.diff(number)) + 1)
        return Joined(
            [
                self.parts[number[run[0]]].select(index[run] - self.starts[number[run[0]]])
                for run in runs
            ]
        )

    def _place(self, i: int) -> tuple[Any, int]:
        number = bisect_right(self.starts, i) - 1
        return self.parts[number], i - self.starts[number]


class Given(Joined):
    """The blocks that the parent gives when it is asked for more. `index` is the number of each
    item among all, `keys` their keys."""

    def __init__(self, line: Line, messages: Iterator[tuple]) -> None:
        super().__init__()
        self._line, self._messages = line, messages
        self.index = np.zeros(0, np.int64)
        self.keys = np.zeros((0, 2), np.uint64)

    def wanted(self) -> Iterator[int]:
        """The items of all blocks. The next one is asked for as a block begins."""
        self._line.send("more")
        while block := next(self._messages, None):
            self._line.send("more")
            index, items = block
            self.index = np.concatenate([self.index, index])
            self.keys = np.concatenate([self.keys, items.keys])
            start = self.count
            self.append(items)
            yield from range(start, self.count)
