"""Which shard and row contains each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusemix_core.latents.segments import Segment, bucket_bounds, first_at, sorted_rows
from fusemix_core.latents.shards import Shard

_BUCKETS = 256
"""As many as the first byte of a key has values."""
_AT_ONCE = 1 << 28
"""Keys that are looked up together: each takes 5 bytes for as long as that lasts."""
_PIECE = 1 << 17
_SPARSE = 64
"""Where a segment has so many rows for each key that is asked, a few are read rather than all."""


@dataclass
class Places:
    """Where each of n items is.

    shard: int32 [n], an index into `shards`, -1 where missing. row: int32 [n], the row in it.
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
        return [self.shards[s] for s in used_numbers(self.shard, len(self.shards))]


def used_numbers(shard: np.ndarray, count: int) -> np.ndarray:
    """int64: which of the numbers 0 to `count` - 1 are in `shard`, in order."""
    seen = np.zeros(count + 1, bool)  # the last is for -1
    for start in range(0, len(shard), _PIECE):
        seen[shard[start : start + _PIECE]] = True
    return np.flatnonzero(seen[:count])


def find(
    shards: Sequence[Shard], keys: np.ndarray, segments: Mapping[Segment, np.ndarray] | None = None
) -> Places:
    """Look up keys in shards; of several that contain one, the first counts.

    It takes 8 bytes per key for the answer, and 5 more while it runs.

    Args:
        shards: in the order in which they count.
        keys: uint64 `[n, 2]`.
        segments: segment → int32, for each shard of it its number in `shards`, or -1. Shards that
            are in none have their keys sorted here.
    """
    shards, segments = list(shards), dict(segments or {})
    keys = np.ascontiguousarray(keys, "<u8")
    place = Places(shards, np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.int32))
    indexed = np.zeros(len(shards) + 1, bool)
    for numbers in segments.values():
        indexed[numbers] = True
    loose = np.flatnonzero(~indexed[:-1]).astype(np.int32)
    sources = [_Source(one.rows, numbers) for one, numbers in segments.items()]
    if len(loose):
        sources.append(_Source(sorted_rows([shards[s] for s in loose]), loose))
    for start in range(0, len(keys) if sources else 0, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        _find(sources, keys[some], place.shard[some], place.row[some])
    return place


def _find(sources: Sequence[_Source], keys: np.ndarray, shard: np.ndarray, row: np.ndarray) -> None:
    """Fill `shard` and `row`, a range of keys after the other, so that each source is gone through
    once and in order."""
    for bucket, index in _buckets(keys):
        asked = keys[index]
        order = np.argsort(asked[:, 0])
        index, asked = index[order], asked[order]
        best = np.full(len(asked), np.iinfo(np.int32).max, np.int32)
        rows = np.zeros(len(asked), np.int32)
        for source in sources:
            source.look_up(bucket, asked, best, rows)
        hit = best < np.iinfo(np.int32).max
        shard[index[hit]], row[index[hit]] = best[hit], rows[hit]


def _buckets(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first byte of the first half, uint32 the keys that begin with it), in order."""
    first = keys.view(np.uint8)[:, 7]
    counts = np.zeros(_BUCKETS, np.int64)
    for start in range(0, len(keys), _PIECE):
        counts += np.bincount(first[start : start + _PIECE], minlength=_BUCKETS)
    ends = np.cumsum(counts)
    following, order = ends - counts, np.empty(len(keys), np.uint32)
    for start in range(0, len(keys), _PIECE):
        piece = first[start : start + _PIECE]
        here = np.bincount(piece, minlength=_BUCKETS)
        shift = following - (np.cumsum(here) - here)
        order[np.repeat(shift, here) + np.arange(len(piece))] = (
            np.argsort(piece, kind="stable") + start
        )
        following += here
    for bucket in np.flatnonzero(counts).tolist():
        yield bucket, order[ends[bucket] - counts[bucket] : ends[bucket]]


class _Source:
    """Sorted rows of keys (see `segments`), and which shard of the caller's each number in them is,
    -1 for none of them."""

    def __init__(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        self.rows, self.numbers = rows, numbers
        cuts = first_at(rows, bucket_bounds(_BUCKETS)).tolist()
        self.cuts = [0, *cuts, len(rows)]

    def look_up(self, bucket: int, asked: np.ndarray, best: np.ndarray, rows: np.ndarray) -> None:
        """Put the shard and row of each of the sorted keys `asked` that is found here, in a shard
        that counts before its `best`, into `best` and `rows`."""
        part = self.rows[self.cuts[bucket] : self.cuts[bucket + 1]]
        if not len(part):
            return
        if len(asked) * _SPARSE < len(part):
            at = first_at(part, asked[:, 0])
        else:
            part = np.asarray(part)
            at = np.searchsorted(np.ascontiguousarray(part[:, 0]), asked[:, 0])
        # Equal first halves are one item in several shards or, almost never, a collision: walk on.
        looking = np.arange(len(asked))
        while len(looking := looking[at[looking] < len(part)]):
            found = part[at[looking]]
            same = found[:, 0] == asked[looking, 0]
            looking, found = looking[same], found[same]
            shard = self.numbers[(found[:, 2] >> np.uint64(32)).astype(np.int64)]
            better = (found[:, 1] == asked[looking, 1]) & (shard >= 0) & (shard < best[looking])
            hit = looking[better]
            best[hit] = shard[better]
            rows[hit] = found[better, 2].astype(np.uint32).astype(np.int32)
            at[looking] += 1
