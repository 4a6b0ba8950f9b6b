"""The feed: a fit's batches in order, the next one made ready while this one computes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor

from fusemix_core.engine.plan import Plan, epoch_order, together
from fusemix_core.engine.randomness import stream, stream_seed
from fusemix_core.engine.windows import Loader, Window, owned
from fusemix_core.gathering import processes
from fusemix_core.interfaces import Batch, Mixup, PairedLatents, ResidentLatents

WINDOW_BYTES = 1 << 29
"""The bytes of the rows that are shuffled together in float32, in all modalities."""

WINDOW_STEPS = 4
"""Steps that a window lasts at least, however large a batch is."""

BLOCK_BYTES = 1 << 18
"""The bytes of a block of neighbouring rows in float16, in all modalities."""

T = TypeVar("T")


def resident(train: PairedLatents) -> bool:
    """Whether every table is held in memory or on a device."""
    return all(isinstance(t, ResidentLatents) for t in train.tables.values())


@dataclass(frozen=True)
class Blocks:
    """Block shuffling: rows of one block are neighbours, windows of many blocks are shuffled.

    rows: `[m]`, the rows of the links by their item of the widest modality, which is about how they
    lie on disk. block, window: how many rows each has; a window is a whole number of steps. items:
    `[m]`, of which those of one item follow each other within a window, if given; the rows are then
    by these.
    """

    rows: Tensor
    block: int
    window: int
    items: Tensor | None = None

    @classmethod
    def of(cls, train: PairedLatents, rows_per_step: int, items: Tensor | None = None) -> Blocks:
        """The blocks of these data: the same wherever the tables are held."""
        dims = list(train.dims.values())
        by = train.links[:, dims.index(max(dims))] if items is None else items
        block = max(BLOCK_BYTES // (2 * sum(dims)), 1)
        return cls(by.argsort(stable=True), block, window_rows(train, rows_per_step), items)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The rows of an epoch in the order they are used: a permutation, int64 `[m]`.

        Blocks begin elsewhere each epoch, so that the same rows are not always together.
        """
        count, generator = len(self.rows), stream(seed, f"blocks {epoch}")
        shift = torch.randint(count, (1,), generator=generator)
        blocks = torch.randperm(-(-count // self.block), generator=generator)
        order = (blocks[:, None] * self.block + torch.arange(self.block)).flatten()
        order = (order[order < count] + shift) % count
        for window in order.split(self.window):
            window.copy_(window[torch.randperm(len(window), generator=generator)])
        rows = self.rows[order]
        if self.items is not None:
            for window in rows.split(self.window):
                window.copy_(together(window, self.items))
        return rows


def window_rows(train: PairedLatents, rows_per_step: int) -> int:
    """How many rows a window has, a whole number of steps."""
    bytes_a_step = 4 * sum(train.dims.values()) * rows_per_step
    return max(WINDOW_BYTES // bytes_a_step, WINDOW_STEPS) * rows_per_step


def feed(
    train: PairedLatents,
    plan: Plan,
    seed: int,
    device: torch.device,
    *,
    blocks: bool,
    epoch: int = 0,
    index: int = 0,
    mixup: Mixup | None = None,
) -> Generator[Batch]:
    """The batches of a fit on `device` from step `index` of `epoch` on. Close it when done.

    In several processes each has the latents of its own rows only, if the mixup that is given says
    which ones these are (`Mixup.sources`). Otherwise batches are whole.

    They depend on the data, the plan and only the seed, the unpaired items of a step, too. With
    `blocks` an epoch is shuffled by blocks (see `Blocks`), and tables that are not resident are
    read once an epoch, window by window; without, each batch is gathered from all over the tables.
    For a GPU that does not hold the tables, windows are copied there as they are stored, and their
    batches gathered on it. Work that would keep the step waiting is done in threads; what goes
    wrong there is raised here.
    """
    parts = _parts(train, plan, seed, blocks, epoch, index)
    step = epoch * plan.steps_per_epoch + index
    drawn = {
        m: unpaired_draws(ids, plan.training.unpaired, stream_seed(seed, f"unpaired {m}"), step)
        for m, ids in train.unpaired.items()
        if len(ids) and plan.training.unpaired
    }
    shared = mixup if processes() > 1 else None
    size = plan.rows_per_step
    return _fed(train, parts, size, device, in_windows=blocks, drawn=drawn, mixup=shared)


def unpaired_draws(ids: Tensor, size: int, seed: int, step: int) -> Iterator[Tensor]:
    """Without end the items that go with each step from `step` on, `size` of `ids` or all: each
    once in a pass, of which the last incomplete draw is dropped. They depend only on these."""
    size = min(size, len(ids))
    first, place = divmod(step, len(ids) // size)
    for number in count(first):
        order = ids[torch.randperm(len(ids), generator=stream(seed, f"pass {number}"))]
        yield from order[: len(ids) // size * size].split(size)[place:]
        place = 0


def sweep(pairs: PairedLatents, size: int, device: torch.device) -> Generator[Batch]:
    """Batches of `size` rows on `device`, every row once, in about the order they have on disk:
    tables that are not resident are read in one pass. Close it when done.

    The last batch may be smaller. Reading and computing go on at the same time, as in `feed`.
    """
    order = Blocks.of(pairs, size).rows
    parts = (Window(pairs, rows, pairs.links[rows]) for rows in order.split(size))
    return _fed(pairs, parts, size, device, in_windows=True)


def _fed(
    pairs: PairedLatents,
    parts: Generator[Window],
    size: int,
    device: torch.device,
    *,
    in_windows: bool,
    drawn: Mapping[str, Iterator[Tensor]] = MappingProxyType({}),
    mixup: Mixup | None = None,
) -> Generator[Batch]:
    """The parts' batches, each with the unpaired items that are drawn for it; what would keep
    their user waiting is done in threads. mixup: whose rows are shared between processes."""
    held, there = resident(pairs), _all_on(pairs, device)
    streamed = device.type == "cuda" and not there
    loads = streamed or (in_windows and not held)
    if streamed:
        parts = _cut(parts, window_rows(pairs, size))
    if mixup is not None:
        parts = owned(parts if loads else _cut(parts, size), size, mixup)
    if loads:
        parts = ahead(map(Loader(device), parts), parts)
    batches = _batches(parts, size, device)
    if drawn:
        batches = _with_unpaired(batches, pairs, drawn, device)
    # Gathers from memory to a CPU need the cores that compute: a thread gains nothing there. Nor is
    # one needed to gather on a GPU.
    gathers = not there if device.type != "cpu" else not held
    return ahead(batches, batches) if gathers and (drawn or not streamed) else batches


def _parts(
    train: PairedLatents, plan: Plan, seed: int, blocks: bool, epoch: int, index: int
) -> Generator[Window]:
    """The rest of each epoch, in windows if it is shuffled by blocks."""
    size, used = plan.rows_per_step, plan.rows_per_step * plan.steps_per_epoch
    items = None
    if plan.training.together:
        items = train.links[:, train.modalities.index(plan.training.together)]
    by_blocks = Blocks.of(train, size, items) if blocks else None
    for now in range(epoch, plan.training.epochs):
        order = (
            by_blocks.order(seed, now) if by_blocks else epoch_order(len(train), seed, now, items)
        )
        window = by_blocks.window if by_blocks else used
        first = index * size
        while first < used:
            end = min(first - first % window + window, used)
            rows = order[first:end]
            yield Window(train, rows, train.links[rows])
            first = end
        index = 0


def _batches(parts: Generator[Window], size: int, device: torch.device) -> Generator[Batch]:
    with closing(parts):
        for part in parts:
            part.await_copies(device)
            for rows, links, own in part.steps(size):
                yield part.latents.batch(rows, device, links, own)


def _cut(parts: Generator[Window], size: int) -> Generator[Window]:
    with closing(parts):
        for part in parts:
            yield from part.cut(size)


def _with_unpaired(
    batches: Generator[Batch],
    pairs: PairedLatents,
    drawn: Mapping[str, Iterator[Tensor]],
    device: torch.device,
) -> Generator[Batch]:
    with closing(batches):
        for batch in batches:
            unpaired = {m: pairs.latents_of(m, next(ids), device) for m, ids in drawn.items()}
            yield replace(batch, unpaired=unpaired)


def _all_on(train: PairedLatents, device: torch.device) -> bool:
    """Whether a gather needs nothing from the CPU. `cuda` is whichever GPU is the current one."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return all(
        isinstance(t, ResidentLatents) and t.latents.device == device for t in train.tables.values()
    )


def ahead(items: Iterator[T], source: Generator) -> Generator[T]:
    """The same items, each made in a thread while the one before is used. Then `source`, which they
    are made from, is closed."""

    def made() -> tuple[T] | None:
        for item in items:
            return (item,)
        return None

    # One torch thread: the others belong to the step.
    threads = ThreadPoolExecutor(1, "fusemix-feed", torch.set_num_threads, (1,))
    with closing(source), threads as pool:
        coming = pool.submit(made)
        while (found := coming.result()) is not None:
            coming = pool.submit(made)
            yield found[0]
