"""Latents on disk, read by memory map."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fusemix_core.interfaces import ResidentLatents
from fusemix_core.latents.lookup import Places
from fusemix_core.latents.shards import Shard


class StoredLatents:
    """A `LatentTable` of n items spread over memory-mapped shards, on the CPU.

    Rows of items that have no latent (those that could not be decoded) are zeros. `dtype` is
    float32 when any shard that is used is, else float16.
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
        self._shard = torch.from_numpy(compact.reshape(-1).astype(np.int64))
        self._row = torch.from_numpy(places.row)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def dim(self) -> int:
        return self.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that `load` takes."""
        return len(self) * math.prod(self.shape) * self.dtype.itemsize

    def rows(self, index: Tensor) -> Tensor:
        """float32 `[len(index), *shape]`, gathered shard by shard."""
        return self._gather(index, torch.float32)

    def load(self) -> ResidentLatents:
        """All rows in memory, in `dtype`."""
        return ResidentLatents(self._gather(torch.arange(len(self)), self.dtype))

    def _gather(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        out = torch.zeros(len(index), *self.shape, dtype=dtype)
        shard, order = self._shard[index].sort(stable=True)
        row = self._row[index[order]]
        present, counts = shard.unique_consecutive(return_counts=True)
        start = 0
        for s, count in zip(present.tolist(), counts.tolist(), strict=True):
            part = slice(start, start + count)
            if s >= 0:
                out.index_copy_(0, order[part], self._maps[s].index_select(0, row[part]).to(dtype))
            start += count
        return out


def memory_map(shard: Shard) -> Tensor:
    """The latents [n, ...] of a shard, mapped privately: writing to them changes no file.

    torch keeps no file descriptor for a map, where numpy's would use up the process's.
    """
    whole = torch.from_file(str(shard.path), shared=False, size=shard.size, dtype=torch.uint8)
    values = whole[shard.offset :].view(getattr(torch, shard.dtype))
    return values.view(len(shard), *shard.shape)
