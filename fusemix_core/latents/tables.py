"""Latents on disk, read by memory map."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import LatentTable, Padded, ResidentLatents
from fusemix_core.latents.lookup import Places, used_numbers
from fusemix_core.latents.pages import drop, no_read_around, read_ahead
from fusemix_core.latents.shards import BadShardError, Shard, check_same
from fusemix_core.latents.stamps import state_of
from fusemix_core.paired import ResidentTokens, longest, spread

MOST_MAPS = 1024
"""Shards that a table has mapped at once; a process may have 65,530 maps in all."""
_TRIES = 5
"""How often a shard is fetched that is gone from the cache when it is to be mapped."""
_AT_ONCE = 256
"""Shards that are read ahead together; no more than `MOST_MAPS`."""


class _Maps:
    """The latents of shards, memory-mapped: all of them if they are few, else those that were
    read last, `most` of them."""

    def __init__(self, shards: Sequence[Shard], most: int) -> None:
        self.shards, self._most = shards, most
        self._open: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = Lock()
        for s in range(len(shards) if len(shards) <= most else 0):
            self[s]

    def __getitem__(self, s: int) -> Tensor:
        with self._lock:
            values = self._open.get(s)
            if values is None:
                values = self._open[s] = _mapped(self.shards[s])
                while len(self._open) > self._most:
                    self._open.popitem(last=False)
            self._open.move_to_end(s)
            return values


def _mapped(shard: Shard) -> Tensor:
    """The latents of a shard, which must be as it was when it was looked up.

    Raises `ArtefactError` if it isn't.
    """
    left = 1 if shard.source is None else _TRIES
    while True:
        left -= 1
        try:
            if shard.source is not None:
                shard.source.need([shard])
            if shard.state is not None and state_of(shard.path) != shard.state:
                check_same(shard)  # another process may have written the same items again
            values = memory_map(shard)
            break
        except (OSError, RuntimeError, BadShardError) as error:
            if left and not shard.path.exists():
                continue  # another process needed its room in the cache just now
            raise ArtefactError(
                f"The shard {shard.path} can't be read any more: "
                f"{getattr(error, 'strerror', None) or error}.",
                "Run the same command again: missing items are encoded again.",
            ) from error
    no_read_around(values)  # what is read asks for what it needs
    return values


class _Stored:
    """n items spread over memory-mapped shards, on the CPU.

    shape: that of one latent. dtype: float32 when any shard that is used is, else float16.
    """

    def __init__(self, places: Places) -> None:
        used = used_numbers(places.shard, len(places.shards))
        number = np.full(len(places.shards) + 1, -1, np.int32)  # the last is for -1
        number[used] = np.arange(len(used))
        self.shards = [places.shards[s] for s in used]
        self.shape = self.shards[0].shape
        self.dtype = (
            torch.float32 if any(s.dtype == "float32" for s in self.shards) else torch.float16
        )
        self._source = self.shards[0].source
        stay = self._source is None or self._source.claimed(self.shards, self)
        # A map keeps the disk of what the cache has deleted.
        self._maps = _Maps(self.shards, MOST_MAPS if stay else 1)
        self._shard = torch.from_numpy(number[places.shard])
        self._row = torch.from_numpy(places.row)

    def __len__(self) -> int:
        return len(self._row)

    def _by_shard(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(shard, places in `index`, int64 rows of the shard) of the items that have a latent, in
        the order they have on disk."""
        row, order = self._row[index].sort(stable=True)
        shard, by_shard = self._shard[index[order]].sort(stable=True)
        order, row = order[by_shard], row[by_shard]
        present, counts = shard.unique_consecutive(return_counts=True)
        start = 0
        for s, count in zip(present.tolist(), counts.tolist(), strict=True):
            part = slice(start, start + count)
            if s >= 0:
                yield s, order[part], row[part].long()
            start += count

    def _at_once(self, index: Tensor) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        """`_by_shard`, as many shards at a time as may be mapped; of an object store as many as
        leave the cache room for the next, which are fetched meanwhile."""
        groups = self._groups(index)
        if self._source is None:
            return groups
        return self._source.ahead(groups, lambda some: [self.shards[s] for s, _, _ in some])

    def _groups(self, index: Tensor) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        most = math.inf if self._source is None else self._source.window
        group, size = [], 0
        for part in self._by_shard(index):
            size += self.shards[part[0]].size
            if group and (size > most or len(group) == min(_AT_ONCE, MOST_MAPS)):
                yield group
                group, size = [], self.shards[part[0]].size
            group.append(part)
        if group:
            yield group


class StoredLatents(_Stored):
    """A `LatentTable` of items whose latents are all of one `shape`.

    Those of items that have none (they could not be decoded) are zeros.
    """

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that `load` takes."""
        return len(self) * self.dim * self.dtype.itemsize

    def rows(self, index: Tensor) -> Tensor | Padded:
        """float32 `[len(index), *shape]`."""
        return self.load(index).rows(torch.arange(len(index)))

    def load(self, index: Tensor | None = None) -> ResidentLatents:
        """The latents of the items in the int64 tensor `index`, or all, in memory, in `dtype`.

        They are read in the order they have on disk, and the memory map uses no memory after.
        """
        index = torch.arange(len(self)) if index is None else index
        out = torch.zeros(len(index), *self.shape, dtype=self.dtype)
        for some in self._at_once(index):
            parts = [(self._maps[s], places.numpy(), row.numpy()) for s, places, row in some]
            for values, _, row in parts:
                read_ahead(values, row)
            for values, places, row in parts:
                # numpy's: torch's would wake all its threads for a few rows at a time.
                out.numpy()[places] = values.numpy()[row]
                drop(values)
        return ResidentLatents(out)


class RaggedLatents(_Stored):
    """A `LatentTable` of items of which each has latents `[T, d]` of a length T of its own.

    lengths: int64 `[n]`, 0 where an item has no latent (it could not be decoded). shape: `(T, d)`,
    T the length of the longest.
    """

    def __init__(self, places: Places) -> None:
        super().__init__(places)
        self._lengths = [torch.from_numpy(s.lengths) for s in self.shards]
        self._starts = [lengths.cumsum(0) - lengths for lengths in self._lengths]
        self.lengths = torch.zeros(len(self), dtype=torch.int64)
        for s, places_, row in self._by_shard(torch.arange(len(self))):
            self.lengths[places_] = self._lengths[s][row]
        self.shape = (longest(self.lengths), *self.shape)

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that `load` takes."""
        return int(self.lengths.sum()) * self.shape[-1] * self.dtype.itemsize

    def rows(self, index: Tensor) -> Padded:
        """Values float32 `[m, T, d]`, T the longest of these items."""
        return self.load(index).rows(torch.arange(len(index)))

    def load(self, index: Tensor | None = None) -> ResidentTokens:
        """The latents of the items in the int64 tensor `index`, or all, in memory, in `dtype` and
        without padding.

        They are read in the order they have on disk, and the memory map uses no memory after.
        """
        index = torch.arange(len(self)) if index is None else index
        lengths = self.lengths[index]
        starts = lengths.cumsum(0) - lengths
        out = torch.zeros(int(lengths.sum()), self.shape[-1], dtype=self.dtype)
        for some in self._at_once(index):
            parts = []
            for s, places, row in some:
                count = self._lengths[s][row]
                source = spread(self._starts[s][row], count)
                parts.append((self._maps[s], spread(starts[places], count), source))
                read_ahead(parts[-1][0], source.numpy())
            for values, target, source in parts:
                out.index_copy_(0, target, values.index_select(0, source).to(out.dtype))
                drop(values)
        return ResidentTokens(out, lengths)


def one_layer(table: LatentTable, layer: int) -> LatentTable:
    """One layer `[n, d]` of a table of `layers`, of shape `(L, d)`; no latent is copied."""
    if isinstance(table, ResidentLatents):
        return ResidentLatents(table.latents[:, layer])
    return _StoredLayer(table, layer)


@dataclass(frozen=True)
class _StoredLayer:
    """One layer of a table that is not in memory."""

    table: LatentTable
    layer: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.table.shape[1:]

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, index: Tensor) -> Tensor:
        rows = self.table.rows(index)
        assert isinstance(rows, Tensor)  # each item has all layers
        return rows[:, self.layer]


def memory_map(shard: Shard) -> Tensor:
    """The latents [n, ...] of a shard, mapped privately: writing to them changes no file.

    torch keeps no file descriptor for a map, where numpy's would use up the process's.
    """
    whole = torch.from_file(str(shard.path), shared=False, size=shard.size, dtype=torch.uint8)
    values = whole[shard.offset :].view(getattr(torch, shard.dtype))
    return values.view(-1, *shard.shape)
