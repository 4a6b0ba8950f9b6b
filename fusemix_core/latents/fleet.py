"""One process for each device: one process feeds several through one interpreter's lock."""

from __future__ import annotations

import pickle
import queue
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.errors import FusemixError
from fusemix_core.latents.batches import batch_size_for
from fusemix_core.latents.child import Child, can_start, unpacked_error
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.filling import Progress, Tally, Target
from fusemix_core.latents.holding import Held
from fusemix_core.latents.pipeline import default_workers

if TYPE_CHECKING:
    from fusemix_core.data.items import Items

BLOCKS = 4
"""The fewest items of each process, if there are items enough: the last ones end together."""


def processes_for(held: Held, items: Items) -> bool:
    """Whether each of the devices is to have a process: several GPUs, and an encoder that other
    processes can load."""
    own = held.spec.target.startswith("__main__") or "<" in held.spec.target
    several = len(held.devices) > 1 and held.devices[0].type != "cpu"
    return several and held.given is None and not own and can_start() and hasattr(items, "select")


def fill_by_processes(
    target: Target,
    missing: np.ndarray,
    items: Items,
    held: Held,
    how: Encoding,
    progress: Progress,
) -> tuple[dict[int, str], list[str]]:
    """Encode and store the missing items, blocks of them by each process; (bad items, warnings).

    A block is a shard, or less where there would be too few of them. Processes take blocks as they
    are done with others, and write to the store as any others would.

    Raises:
        FusemixError: a process met one, or ended. Finished shards are kept.
    """
    count = len(held.devices)
    batch = batch_size_for(held.spec, how.batch_size, held.devices[0]).items
    size = min(target.most, -(-len(missing) // (count * BLOCKS * batch)) * batch)
    blocks = np.split(missing, range(size, len(missing), size))
    with _Fleet(held, target, how, min(count, len(blocks)), len(missing)) as fleet:
        return fleet.run(iter(blocks), items, progress)


class _Fleet:
    """The processes; use as a context manager."""

    def __init__(self, held: Held, target: Target, how: Encoding, count: int, total: int) -> None:
        self.held, self.total = held, total
        self._said: queue.SimpleQueue[tuple] = queue.SimpleQueue()
        self._children = [
            Child(
                "fusemix_core.latents.fleet_worker",
                partial(self._heard, number),
                partial(self._heard, number, ("ended",)),
                helper=False,
            )
            for number in range(count)
        ]
        own = replace(how, workers=how.workers or default_workers(count), dtype=held.dtype)
        for child, device in zip(self._children, held.devices, strict=False):
            child.start()
            how = replace(own, device=str(device))
            child.send(pickle.dumps((held.spec, target, how, total // count)))

    def __enter__(self) -> _Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.close()

    def run(
        self, blocks: Iterator[np.ndarray], items: Items, progress: Progress
    ) -> tuple[dict[int, str], list[str]]:
        """Give out the blocks, and put together what the processes report."""
        bad: dict[int, str] = {}
        tally, done = Tally(), dict.fromkeys(range(len(self._children)), 0)
        working = set(done)
        progress(0, self.total)
        while working:
            number, kind, *rest = self._said.get()
            if kind == "more":
                block = next(blocks, None)
                given = () if block is None else (block, items.select(block))
                self._children[number].send(*given)
            elif kind == "progress":
                done[number] = rest[0]
                progress(min(sum(done.values()), self.total), self.total)
            elif kind == "done":
                working.discard(number)
                bad |= rest[0]
                tally.add(rest[1])
            elif kind == "fault":
                raise unpacked_error(rest[0])
            elif number in working:
                raise self._ended(number)
        progress(self.total, self.total)
        return dict(sorted(bad.items())), tally.warnings(self.held.spec)

    def _heard(self, number: int, message: tuple[Any, ...] = ()) -> None:
        self._said.put((number, *message))

    def _ended(self, number: int) -> FusemixError:
        how = self._children[number].how_it_ended()
        return FusemixError(
            f"The process that encoded on {self.held.devices[number]} ended ({how}).",
            "Often it is a lack of memory: use a smaller --encode-batch, or --device cuda:0. "
            "Finished shards are kept.",
        )
