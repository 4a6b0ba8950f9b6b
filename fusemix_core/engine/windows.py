"""Windows of an epoch: the rows of some steps, with the items they link in memory or on a GPU."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusemix_core.gathering import processes, rank
from fusemix_core.interfaces import LatentTable, Mixup, PairedLatents, ResidentLatents
from fusemix_core.mixup import sources_of
from fusemix_core.own import Own
from fusemix_core.paired import load, sent


@dataclass(frozen=True)
class Window:
    """Rows of `latents` in the order they are used, a whole number of steps.

    links: `[n, K]`, with the numbers that the items have in the dataset. ready: when the tables are
    on the GPU, if they are copied there. owns: which rows of each step this process reads, None for
    all; empty if there is only one process.
    """

    latents: PairedLatents
    rows: Tensor
    links: Tensor
    ready: torch.Event | None = None
    owns: tuple[Own | None, ...] = ()

    def cut(self, size: int) -> Generator[Window]:
        """The same rows in windows of at most `size`, before anything is read."""
        for rows, links in zip(self.rows.split(size), self.links.split(size), strict=True):
            yield Window(self.latents, rows, links)

    def steps(self, size: int) -> Iterator[tuple[Tensor, Tensor, Own | None]]:
        """(rows, links, whose latents are read) of each step of `size` rows."""
        steps = self.rows.split(size), self.links.split(size)
        return zip(*steps, self.owns or [None] * len(steps[0]), strict=True)

    def read(self) -> Tensor | None:
        """bool `[n]`: the rows whose latents this process reads; None for all."""
        owns = [own for own in self.owns if own is not None]
        if not owns or len(owns) < len(self.owns):
            return None
        size = -(-len(self.rows) // len(owns))
        found = torch.zeros(len(self.rows), dtype=torch.bool)
        for number, own in enumerate(owns):
            found[number * size + own.rows] = True
        return found

    def await_copies(self, device: torch.device) -> None:
        """Let what follows on the device's stream wait for the copies; the CPU does not."""
        if self.ready is None:
            return
        stream = torch.cuda.current_stream(device)
        stream.wait_event(self.ready)
        for table in self.latents.tables.values():
            if isinstance(table, ResidentLatents):
                table.latents.record_stream(stream)  # which still reads it when it is let go of


class Loader:
    """Loads windows, and copies them to a GPU on a stream of its own, past the steps' work.

    Tables keep the type they are stored in: rows become float32 when a batch is gathered.

    Args:
        device: where batches are made. On a CPU tables that are in memory stay as they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, window: Window) -> Window:
        """The same rows, with those items of the tables that they link."""
        links, tables, read = window.links.clone(), dict(window.latents.tables), window.read()
        for k, (modality, table) in enumerate(tables.items()):
            if not self._is_ready(table):
                own = links[:, k]
                if read is not None:
                    own[~read] = -1
                ids = own[own >= 0].unique()
                if not len(ids):  # no row has the modality: any item takes the places
                    ids = torch.zeros(1, dtype=torch.int64)
                tables[modality] = self._sent(load(table, ids))
                links[:, k] = torch.where(own < 0, -1, torch.searchsorted(ids, own.clamp(min=0)))
        own = replace(window.latents.select(window.rows), tables=tables, links=links)
        ready = self.stream.record_event() if self.stream is not None else None
        return Window(own, torch.arange(len(links)), window.links, ready, window.owns)

    def _is_ready(self, table: LatentTable) -> bool:
        if not isinstance(table, ResidentLatents):
            return False
        return self.stream is None or table.latents.device.type == self.device.type

    def _sent(self, table: ResidentLatents) -> ResidentLatents:
        if self.stream is None:
            return table
        with torch.cuda.stream(self.stream):
            return table.holding(sent(table.latents, self.device))


def owned(parts: Generator[Window], size: int, mixup: Mixup) -> Generator[Window]:
    """The windows, with what this process reads of each step of `size` rows."""
    with closing(parts):
        for part in parts:
            owns = tuple(_own(part.latents, links, mixup) for links in part.links.split(size))
            yield replace(part, owns=owns)


def _own(latents: PairedLatents, links: Tensor, mixup: Mixup) -> Own | None:
    sources = sources_of(mixup, links >= 0)
    if sources is None:
        return None
    return replace(Own.of(sources, rank(), processes()), longest=latents.longest_tokens(links))
