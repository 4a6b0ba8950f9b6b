"""Texts held in Arrow: many of them, normalised and hashed at once."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np

from fusemix_core.data.media.text import normalise_text

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 1 << 16
"""From so many texts on they are kept in Arrow; fewer are a list."""
_SPACES = np.isin(np.arange(256), [*range(9, 14), *range(28, 33)])
"""The bytes that `str.strip` takes off."""


class Texts(Sequence[str]):
    """Many texts in Arrow arrays: each takes its bytes and four more. Equal to a list of them."""

    def __init__(self, chunks: Iterable[pa.Array]) -> None:
        self.chunks = [chunk for chunk in chunks if len(chunk)]
        self._ends = np.cumsum([len(chunk) for chunk in self.chunks], dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, i: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = operator.index(i)
        i += len(self) * (i < 0)
        if not 0 <= i < len(self):
            raise IndexError(i)
        chunk = bisect_right(self._ends, i)
        return self.chunks[chunk][i - (self._ends[chunk - 1] if chunk else 0)].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Texts | list) and list(self) == list(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"Texts of {len(self):,}"

    def take(self, index: np.ndarray) -> Texts | list[str]:
        """The texts `index`, which are sorted: as these are, or as a list if they are few."""
        chunks, start = [], 0
        for chunk, end in zip(self.chunks, self._ends, strict=True):
            low, high = np.searchsorted(index, [start, end])
            whole = high - low == len(chunk)
            chunks.append(chunk if whole else chunk.take(index[low:high] - start))
            start = end
        found = Texts(chunks)
        return found if len(found) >= MANY else list(found)

    def starting(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(number of its first text, first bytes uint8, lengths in bytes) of each array."""
        start = 0
        for chunk in self.chunks:
            offsets, data = buffers_of(chunk)
            lengths = np.diff(offsets)
            first = np.zeros(len(chunk), np.uint8)
            if len(data):
                first = np.where(lengths > 0, data[np.minimum(offsets[:-1], len(data) - 1)], first)
            yield start, first, lengths
            start += len(chunk)


def buffers_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(int32 offsets `[n + 1]`, the bytes that they point into) of strings."""
    _, offsets, data = texts.buffers()
    found = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return found, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def text_array(offsets: np.ndarray, data: np.ndarray) -> pa.Array:
    """The strings whose bytes are between int32 offsets of these data, no more of which is held."""
    import pyarrow as pa

    if offsets[0] or offsets[-1] < len(data):
        data, offsets = data[offsets[0] : offsets[-1]].copy(), offsets - offsets[0]
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def keys_of(texts: pa.Array) -> np.ndarray:
    """uint64 `[n, 2]`: the content keys (`digests.content_key`) of strings."""
    import pyarrow as pa

    digests, begin = [], blake2b(digest_size=16).copy
    for one in texts.cast(pa.binary()).to_pylist():
        digest = begin()  # a copy takes less time than a new one
        digest.update(one)
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def plain_texts(texts: pa.Array, lists: bytes = b"[({") -> tuple[pa.Array, np.ndarray]:
    """(the texts normalised, bool `[n]`: which of them are one text for sure).

    What is empty, or may be a list as it begins with a bracket or `array([`, is not.
    """
    import pyarrow as pa

    offsets, data = buffers_of(texts)
    lengths = np.diff(offsets)
    plain = lengths > 0
    if texts.null_count:
        plain &= texts.is_valid().to_numpy(zero_copy_only=False)
    first, last = np.zeros(len(texts), np.uint8), np.zeros(len(texts), np.uint8)
    first[plain] = data[offsets[:-1][plain]]
    last[plain] = data[offsets[1:][plain] - 1]
    plain &= ~np.isin(first, list(lists))
    odd = plain & (_SPACES[first] | _SPACES[last])
    inside = data[offsets[0] : offsets[-1]]
    if len(inside) and inside.max() >= 128:
        beyond = np.concatenate([[0], np.cumsum(inside >= 128)])
        odd |= plain & (np.diff(beyond[offsets - offsets[0]]) > 0)
    maybe = np.flatnonzero(plain & (first == ord("a")) & (lengths >= 7))
    arrays = [i for i in maybe if data[offsets[i] : offsets[i] + 7].tobytes() == b"array(["]
    plain[arrays] = False
    if (index := np.flatnonzero(odd)).size:
        values = texts.to_pylist()
        for i in index:
            values[i] = normalise_text(values[i])
            plain[i] &= values[i] != ""
        texts = pa.array(values, pa.string())
    return texts, plain
