"""Which shard and row holds each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusemix_core.latents.shards import Shard


@dataclass
class Places:
    """Where each of n items is.

    shard: int32 [n], an index into `shards`, -1 where missing. row: int64 [n], the row in it.
    """

    shards: list[Shard]
    shard: np.ndarray
    row: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """bool [n]"""
        return self.shard < 0

    def used(self) -> list[Shard]:
        """The shards that hold at least one of the items."""
        return [self.shards[s] for s in np.unique(self.shard[self.shard >= 0])]


def find(shards: Sequence[Shard], keys: np.ndarray) -> Places:
    """Look up keys uint64 [n, 2] in the shards; of several that hold one, the first counts."""
    shards = list(shards)
    place = Places(shards, np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.int64))
    if not shards or not len(keys):
        return place
    stored = np.concatenate([s.keys for s in shards])
    lengths = [len(s) for s in shards]
    order = np.argsort(np.ascontiguousarray(stored[:, 0]), kind="stable")
    high, low = stored[order, 0], stored[order, 1]

    # Equal first halves are the same item in two shards or, almost never, a collision: walk along.
    at = np.empty(len(keys), np.int64)
    sorted_keys = np.argsort(np.ascontiguousarray(keys[:, 0]))  # three times faster to look up
    at[sorted_keys] = np.searchsorted(high, keys[sorted_keys, 0])
    found = np.full(len(keys), -1, np.int64)
    looking = np.arange(len(keys))
    while len(looking := looking[at[looking] < len(high)]):
        looking = looking[high[at[looking]] == keys[looking, 0]]
        hit = low[at[looking]] == keys[looking, 1]
        found[looking[hit]] = order[at[looking[hit]]]
        looking = looking[~hit]
        at[looking] += 1

    here = found >= 0
    owner = np.repeat(np.arange(len(shards), dtype=np.int32), lengths)
    place.shard[here] = owner[found[here]]
    place.row[here] = found[here] - (np.cumsum(lengths) - lengths)[place.shard[here]]
    return place
