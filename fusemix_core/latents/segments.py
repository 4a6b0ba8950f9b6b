"""Segments of a view's index: where the keys of some shards are, sorted and memory-mapped.

A segment is a safetensors file with `rows` uint64 [n, 3] (both halves of a key, and the shard's
number and the row in it as halves of 64 bits), `shards` (JSON: what is known of each, by name) and
`digest`, the BLAKE2b of all before it. It depends on the names of its shards only, as these tell
their keys: it stays right for as long as they are there, and any process may make it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from fusemix_core.disk import make_folder, write_atomically
from fusemix_core.latents.shards import (
    DTYPES,
    SUFFIX,
    BadShardError,
    Shard,
    parse_header,
    safetensors_header,
    shard_id,
)

SEGMENT = ".idx"
_FORMAT = "fusemix-index-1"
_ENTRY = 24
_DIGEST = 32
_BUCKET = 1 << 20
"""Rows that are merged at once."""
_CHUNK = 1 << 22


class Segment:
    """A segment on disk. `shards` are those of the view's folder as they were when it was made."""

    def __init__(self, path: Path) -> None:
        """Map the file; raises `BadShardError` if it is malformed, OSError if it can't be read."""
        self.path = path
        with open(path, "rb") as file:
            self.size = file.seek(0, 2)
            file.seek(0)
            start, tensors = parse_header(path, file, self.size)
            try:
                (count, width), (length,) = tensors["rows"]["shape"], tensors["shards"]["shape"]
                known = tensors["__metadata__"]["format"] == _FORMAT and width == 3 and count > 0
                end = start + _ENTRY * count
                if not known or self.size != end + length + _DIGEST:
                    raise ValueError("its sizes don't fit")
                file.seek(end)
                self.shards = [_shard(path, facts) for facts in json.loads(file.read(length))]
                if sum(map(len, self.shards)) != count:
                    raise ValueError("its counts don't fit")
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                raise BadShardError(f"{path} is not an index segment: {error}") from error
            self.digest = file.read(_DIGEST).hex()
        self.rows: np.ndarray = np.memmap(path, "<u8", "r", start, (count, 3))
        self.verified = False

    def __len__(self) -> int:
        return len(self.rows)

    def close(self) -> None:
        """Let go of the map: a file that is mapped can't be deleted everywhere."""
        self.rows = np.empty((0, 3), np.uint64)

    def verify(self) -> None:
        """Read the whole file; raises `BadShardError` if its digest differs."""
        digest, left = hashlib.blake2b(digest_size=_DIGEST), self.size - _DIGEST
        with open(self.path, "rb") as file:
            while left and (piece := file.read(min(_CHUNK, left))):
                digest.update(piece)
                left -= len(piece)
        if digest.hexdigest() != self.digest:
            raise BadShardError(f"{self.path} does not match its checksum.")
        self.verified = True


def segment_of(folder: Path, shards: Sequence[Shard]) -> Segment:
    """Write the segment of these shards, whose keys are read here."""
    shards = sorted(shards, key=lambda s: s.path.name)
    return _write(folder, shards, [sorted_rows(shards)])


def merged(folder: Path, segments: Sequence[Segment], present: Mapping[str, int]) -> Segment | None:
    """Write one segment for several, of the shards that are still there: `present` has their sizes
    by file name. None if there are none."""
    owner: dict[str, tuple[int, Shard]] = {}
    for k, one in enumerate(segments):
        owner |= {s.path.name: (k, s) for s in one.shards if is_there(s, present)}
    shards = [owner[name][1] for name in sorted(owner)]
    number = {id(shard): i for i, shard in enumerate(shards)}
    places = [np.array([number.get(id(s), -1) for s in one.shards], np.int64) for one in segments]
    return _write(folder, shards, _merge(segments, places)) if shards else None


def is_there(shard: Shard, present: Mapping[str, int]) -> bool:
    """Whether the file that a segment tells of is among those `present`, name → size."""
    return present.get(shard.path.name) == shard.size


def _merge(segments: Sequence[Segment], places: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of segments in order, a range of keys at a time, with new numbers of shards."""
    total = sum(map(len, segments))
    bounds = bucket_bounds(max(1, -(-total // _BUCKET)))
    cuts = [[0, *first_at(one.rows, bounds).tolist(), len(one)] for one in segments]
    for b in range(len(bounds) + 1):
        parts = []
        for one, place, cut in zip(segments, places, cuts, strict=True):
            rows = np.array(one.rows[cut[b] : cut[b + 1]])
            now = place[(rows[:, 2] >> np.uint64(32)).astype(np.int64)]
            rows, now = rows[now >= 0], now[now >= 0]
            rows[:, 2] = (now.astype(np.uint64) << np.uint64(32)) | (rows[:, 2] & _LOW)
            parts.append(rows)
        yield in_order(np.concatenate(parts))


_LOW = np.uint64(0xFFFFFFFF)


def sorted_rows(shards: Sequence[Shard]) -> np.ndarray:
    """Rows uint64 `[n, 3]` of the shards' keys in order, each shard by its place in the list."""
    rows = np.empty((sum(map(len, shards)), 3), "<u8")
    start = 0
    for number, shard in enumerate(shards):
        part = rows[start : start + len(shard)]
        part[:, :2] = shard.keys
        part[:, 2] = np.arange(len(shard), dtype=np.uint64) | np.uint64(number << 32)
        start += len(shard)
    return in_order(rows)


def in_order(rows: np.ndarray) -> np.ndarray:
    """Rows by the first half of their key, equal ones by shard and row."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    same = np.zeros(len(rows), bool)
    if len(rows):
        same[1:] = rows[1:, 0] == rows[:-1, 0]
        same[:-1] |= same[1:]
    ties = rows[same]
    rows[same] = ties[np.lexsort((ties[:, 2], ties[:, 0]))]
    return rows


def bucket_bounds(buckets: int) -> np.ndarray:
    """uint64 `[buckets - 1]`: where the ranges of first halves, all alike in width, end."""
    return np.array([(i << 64) // buckets for i in range(1, buckets)], np.uint64)


def first_at(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """int64: for each value the first row whose key's first half is no less. Reads few rows."""
    low = np.zeros(len(values), np.int64)
    high = np.full(len(values), len(rows), np.int64)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        less = np.zeros(len(values), bool)
        less[open_] = rows[middle[open_], 0] < values[open_]
        low = np.where(less, middle + 1, low)
        high = np.where(open_ & ~less, middle, high)
    return low


def _write(folder: Path, shards: Sequence[Shard], blocks: Iterable[np.ndarray]) -> Segment:
    facts = [
        [s.path.name, len(s), s.dtype, list(s.shape), s.offset, s.size, s.ragged] for s in shards
    ]
    table = json.dumps(facts, separators=(",", ":")).encode()
    name = hashlib.blake2b(table, digest_size=16).hexdigest()
    count = sum(map(len, shards))
    layout = {
        "rows": ("U64", (count, 3), _ENTRY * count),
        "shards": ("U8", (len(table),), len(table)),
        "digest": ("U8", (_DIGEST,), _DIGEST),
    }
    path = folder / f"{name}{SEGMENT}"

    def parts() -> Iterator[bytes | memoryview]:
        digest = hashlib.blake2b(digest_size=_DIGEST)
        raw = (np.ascontiguousarray(rows, "<u8").reshape(-1).view(np.uint8).data for rows in blocks)
        for part in chain([safetensors_header(layout, {"format": _FORMAT})], raw, [table]):
            digest.update(part)
            yield part
        yield digest.digest()

    make_folder(folder)
    write_atomically(path, parts())
    segment = Segment(path)
    segment.verified = True
    return segment


def _shard(segment: Path, facts: list) -> Shard:
    """A shard as a segment tells of it."""
    name, count, dtype, shape, offset, size, ragged = facts
    sizes = (count, offset, size, *shape)
    if (
        "/" in name
        or not name.endswith(SUFFIX)
        or dtype not in DTYPES
        or not all(type(one) is int and one > 0 for one in sizes)
    ):
        raise ValueError(f"its shard {name} is not possible")
    path = segment.parent.parent / name
    shape = tuple(shape)
    return Shard(path, None, shape, dtype, offset, size, {}, count=count, ragged=bool(ragged))


def tells_its_keys(shard: Shard) -> bool:
    """Whether a shard's name is that of its keys, so that an index may know it by its name."""
    return shard_id(shard.keys, shard.dtype) == shard.path.name.removesuffix(SUFFIX)
