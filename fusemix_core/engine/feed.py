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
from fusemix_core.interfaces import Batch, LatentTable, PairedLatents, ResidentLatents
from fusemix_core.paired import in_memory

WINDOW_BYTES = 1 << 29
"""What the rows that are shuffled together would take in float32, in all modalities."""

WINDOW_STEPS = 4
"""Steps that a window lasts at least, however large a batch is."""

BLOCK_BYTES = 1 << 18
"""What a block of neighbouring rows would take in float16, in all modalities."""

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
        steps = max(WINDOW_BYTES // (4 * sum(dims) * rows_per_step), WINDOW_STEPS)
        by = train.links[:, dims.index(max(dims))] if items is None else items
        block = max(BLOCK_BYTES // (2 * sum(dims)), 1)
        return cls(by.argsort(stable=True), block, steps * rows_per_step, items)

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


def feed(
    train: PairedLatents,
    plan: Plan,
    seed: int,
    device: torch.device,
    *,
    blocks: bool,
    epoch: int = 0,
    index: int = 0,
) -> Generator[Batch]:
    """The batches of a fit on `device` from step `index` of `epoch` on. Close it when done.

    They depend on the data, the plan and the seed alone, the unpaired items of a step, too. With
    `blocks` an epoch is shuffled by
    blocks (see `Blocks`), and tables that are not resident are read once an epoch, window by
    window; without, each batch is gathered from all over the tables. Work that would keep the step
    waiting is done in threads; what goes wrong there is raised here.
    """
    parts = _parts(train, plan, seed, blocks, epoch, index)
    step = epoch * plan.steps_per_epoch + index
    drawn = {
        m: unpaired_draws(ids, plan.training.unpaired, stream_seed(seed, f"unpaired {m}"), step)
        for m, ids in train.unpaired.items()
        if len(ids) and plan.training.unpaired
    }
    return _fed(train, parts, plan.rows_per_step, device, in_windows=blocks, drawn=drawn)


def unpaired_draws(ids: Tensor, size: int, seed: int, step: int) -> Iterator[Tensor]:
    """Without end the items that go with each step from `step` on, `size` of `ids` or all: each
    once in a pass, of which the last incomplete draw is dropped. They depend on these alone."""
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
    parts = (_Part(pairs, rows, pairs.links[rows]) for rows in order.split(size))
    return _fed(pairs, parts, size, device, in_windows=True)


def _fed(
    pairs: PairedLatents,
    parts: Generator[_Part],
    size: int,
    device: torch.device,
    *,
    in_windows: bool,
    drawn: Mapping[str, Iterator[Tensor]] = MappingProxyType({}),
) -> Generator[Batch]:
    """The parts' batches, each with the unpaired items that are drawn for it; what would keep
    their user waiting is done in threads."""
    held = resident(pairs)
    if in_windows and not held:
        parts = ahead(_in_memory(part) for part in parts)
    batches = _batches(parts, size, device)
    if drawn:
        batches = _with_unpaired(batches, pairs, drawn, device)
    # Gathers from memory to a CPU need the cores that compute: a thread gains nothing there.
    moves = device.type != "cpu" and not _all_on(pairs, device)
    return ahead(batches) if moves or not held else batches


@dataclass(frozen=True)
class _Part:
    """Rows of `latents` in the order they are used, a whole number of steps; links `[n, K]` are
    theirs, with the numbers that the items have in the dataset."""

    latents: PairedLatents
    rows: Tensor
    links: Tensor


def _parts(
    train: PairedLatents, plan: Plan, seed: int, blocks: bool, epoch: int, index: int
) -> Generator[_Part]:
    """What is left of each epoch, in windows where it is shuffled by blocks."""
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
            yield _Part(train, rows, train.links[rows])
            first = end
        index = 0


def _in_memory(part: _Part) -> _Part:
    """The same rows, with those items of tables that are not resident that they link."""
    links, tables = part.links.clone(), {}
    for k, (modality, table) in enumerate(part.latents.tables.items()):
        tables[modality] = table
        if not isinstance(table, ResidentLatents):
            own = links[:, k]
            ids = own[own >= 0].unique()
            tables[modality] = _load(table, ids)
            links[:, k] = torch.where(own < 0, -1, torch.searchsorted(ids, own.clamp(min=0)))
    own = replace(part.latents.select(part.rows), tables=tables, links=links)
    return _Part(own, torch.arange(len(links)), part.links)


def _load(table: LatentTable, ids: Tensor) -> ResidentLatents:
    """In the type they are stored in, where the table can give that."""
    load = getattr(table, "load", None)
    return load(ids) if load else in_memory(table.rows(ids))


def _batches(parts: Generator[_Part], size: int, device: torch.device) -> Generator[Batch]:
    with closing(parts):
        for part in parts:
            for rows, links in zip(part.rows.split(size), part.links.split(size), strict=True):
                yield part.latents.batch(rows, device, links)


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


def ahead(items: Generator[T]) -> Generator[T]:
    """The same items, each made in a thread while the one before is used."""
    end = object()
    # One torch thread: the others belong to the step.
    with closing(items), ThreadPoolExecutor(1, "fusemix-feed", torch.set_num_threads, (1,)) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
