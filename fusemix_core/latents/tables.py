"""Latents on disk, read by memory map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.interfaces import LatentTable, Padded, ResidentLatents
from fusemix_core.latents.lookup import Places
from fusemix_core.latents.pages import drop, no_read_around, read_ahead
from fusemix_core.latents.shards import Shard


class _Stored:
    """n items spread over memory-mapped shards, on the CPU.

    shape: that of one latent. dtype: float32 when any shard that is used is, else float16.
    """

    def __init__(self, places: Places) -> None:
        used, compact = np.unique(places.shard, return_inverse=True)
        if used[:1] == -1:
            used, compact = used[1:], compact - 1
        self.shards = [places.shards[s] for s in used]
        self.shape = self.shards[0].shape
        self.dtype = (
            torch.float32 if any(s.dtype == "float32" for s in self.shards) else torch.float16
        )
        self._maps = [memory_map(s) for s in self.shards]
        for values in self._maps:
            no_read_around(values)  # what is read asks for what it needs
        self._shard = torch.from_numpy(compact.reshape(-1).astype(np.int64))
        self._row = torch.from_numpy(places.row)

    def __len__(self) -> int:
        return len(self._row)

    def _by_shard(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(shard, places in `index`, rows of the shard) of the items that have a latent, in the
        order they have on disk."""
        row, order = self._row[index].sort(stable=True)
        shard, by_shard = self._shard[index[order]].sort(stable=True)
        order, row = order[by_shard], row[by_shard]
        present, counts = shard.unique_consecutive(return_counts=True)
        start = 0
        for s, count in zip(present.tolist(), counts.tolist(), strict=True):
            part = slice(start, start + count)
            if s >= 0:
                yield s, order[part], row[part]
            start += count


class StoredLatents(_Stored):
    """A `LatentTable` of items whose latents are all of one `shape`.

    `rows` gives each as one row, `dim` wide; `unflatten(1, shape)` gives the axes back. Rows of
    items that have no latent (those that could not be decoded) are zeros.
    """

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that `load` takes."""
        return len(self) * self.dim * self.dtype.itemsize

    def rows(self, index: Tensor) -> Tensor:
        """float32 `[len(index), dim]`."""
        return self.load(index).rows(torch.arange(len(index)))

    def load(self, index: Tensor | None = None) -> ResidentLatents:
        """The latents of the items in the int64 tensor `index`, or all, in memory, in `dtype`.

        They are read in the order they have on disk, and the memory map holds no memory after.
        """
        index = torch.arange(len(self)) if index is None else index
        parts = [
            (self._maps[s], places.numpy(), row.numpy()) for s, places, row in self._by_shard(index)
        ]
        out = torch.zeros(len(index), *self.shape, dtype=self.dtype)
        for values, _, row in parts:
            read_ahead(values, row)
        for values, places, row in parts:
            # numpy's: torch's would wake all its threads for a few rows at a time.
            out.numpy()[places] = values.numpy()[row]
            drop(values)
        return ResidentLatents(out)


class RaggedLatents(_Stored):
    """Items of which each has latents `[T, d]` of a length T of its own: see `TokenRows` for the
    `LatentTable`.

    lengths: int64 `[n]`, 0 where an item has no latent (it could not be decoded). shape: `(d,)`.
    """

    def __init__(self, places: Places) -> None:
        super().__init__(places)
        self._lengths = [torch.from_numpy(s.lengths) for s in self.shards]
        self._starts = [lengths.cumsum(0) - lengths for lengths in self._lengths]
        self.lengths = torch.zeros(len(self), dtype=torch.int64)
        for s, places_, row in self._by_shard(torch.arange(len(self))):
            self.lengths[places_] = self._lengths[s][row]

    def rows(self, index: Tensor) -> Padded:
        """The latents of the items in the int64 tensor `index`: values float32 `[m, T, d]`, T the
        longest of these items."""
        lengths = self.lengths[index]
        longest = int(lengths.max()) if len(index) else 0
        out = torch.zeros(len(index), longest, *self.shape)
        self.read(index, torch.arange(len(index)) * longest, out.flatten(0, 1))
        return Padded(out, torch.arange(longest) < lengths[:, None])

    def read(self, index: Tensor, starts: Tensor, out: Tensor) -> None:
        """Write the latents of item `index[i]` to the rows of `out` `[…, d]` from `starts[i]` on.

        They are read in the order they have on disk, and the memory map holds no memory after.
        """
        parts = []
        for s, places, row in self._by_shard(index):
            count = self._lengths[s][row]
            source = spread(self._starts[s][row], count)
            parts.append((self._maps[s], spread(starts[places], count), source))
            read_ahead(self._maps[s], source.numpy())
        for values, target, source in parts:
            out.index_copy_(0, target, values.index_select(0, source).to(out.dtype))
            drop(values)


class TokenRows:
    """The `LatentTable` of items that differ in length: a row holds an item's latents, and zeros up
    to the length of the longest of all: `[T * d]`."""

    def __init__(self, ragged: RaggedLatents) -> None:
        self.ragged = ragged
        self.shape = (max(int(ragged.lengths.max()), 1), *ragged.shape)

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.ragged)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that `load` takes."""
        width = self.shape[-1] * self.ragged.dtype.itemsize
        return int(self.ragged.lengths.sum()) * width

    def rows(self, index: Tensor) -> Tensor:
        """float32 `[len(index), dim]`."""
        return self.load(index).rows(torch.arange(len(index)))

    def load(self, index: Tensor | None = None) -> ResidentTokens:
        """The latents of the items in the int64 tensor `index`, or all, in memory, in the type they
        are stored in and without padding."""
        index = torch.arange(len(self)) if index is None else index
        lengths = self.ragged.lengths[index]
        out = torch.zeros(int(lengths.sum()), self.shape[-1], dtype=self.ragged.dtype)
        self.ragged.read(index, lengths.cumsum(0) - lengths, out)
        return ResidentTokens(out, lengths, self.shape[0])


class ResidentTokens(ResidentLatents):
    """The table of items that differ in length, in memory or on a device.

    latents: those of all items one after another, `[sum of lengths, d]`; lengths: int64 `[n]` on
    the CPU; longest: how many a row has room for.
    """

    def __init__(self, latents: Tensor, lengths: Tensor, longest: int) -> None:
        super().__init__(latents)
        self.lengths, self.longest = lengths, longest
        self._starts = lengths.cumsum(0) - lengths

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.longest, self.latents.shape[1])

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, index: Tensor) -> Tensor:
        device = self.latents.device
        count = self.lengths[index]
        source = spread(self._starts[index], count).to(device)
        target = spread(torch.arange(len(index)) * self.longest, count).to(device)
        own = self.latents.index_select(0, source)
        own = own if own.dtype == torch.float64 else own.float()
        rows = own.new_zeros(len(index) * self.longest, own.shape[1])
        return rows.index_copy_(0, target, own).view(len(index), self.dim)

    def to(self, device: torch.device) -> ResidentTokens:
        return ResidentTokens(self.latents.to(device), self.lengths, self.longest)


def spread(starts: Tensor, counts: Tensor) -> Tensor:
    """int64: starts[0], starts[0] + 1, … (counts[0] of them), then those of starts[1], and on."""
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return starts.repeat_interleave(counts) + within


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
        return self.table.rows(index).unflatten(1, self.table.shape)[:, self.layer]


def memory_map(shard: Shard) -> Tensor:
    """The latents [n, ...] of a shard, mapped privately: writing to them changes no file.

    torch keeps no file descriptor for a map, where numpy's would use up the process's.
    """
    whole = torch.from_file(str(shard.path), shared=False, size=shard.size, dtype=torch.uint8)
    values = whole[shard.offset :].view(getattr(torch, shard.dtype))
    return values.view(-1, *shard.shape)
