"""What was gathered of one modality: distinct files, or texts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from fusemix_core.data.arrow_texts import MANY, Texts, buffers_of, keys_of, text_array
from fusemix_core.data.hashes import text_keys
from fusemix_core.data.numbers import Growing
from fusemix_core.data.references import Reference
from fusemix_core.data.spilled import Spilled

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=str | Reference)

HELD = 4 << 20
"""Bytes of texts that are held in memory; more go to disk and are mapped from there."""


class Gathered(Generic[R]):
    """The distinct references of one modality, and where each was met first."""

    def __init__(self) -> None:
        self.ids: dict[Hashable, int] = {}
        self.references: list[R] = []
        self.file, self.row = Growing("i"), Growing("q")

    def __len__(self) -> int:
        return len(self.file)

    def add(self, reference: R, file: int, row: int) -> int:
        """The number of a reference, a new one if it is new."""
        found = self.ids.get(reference)
        if found is None:
            found = self.ids[reference] = len(self)
            self.references.append(reference)
            self.file.append(file)
            self.row.append(row)
        return found


class GatheredTexts(Gathered[str]):
    """The texts of one modality and where each was met. Blocks of them are kept in Arrow; a text
    may occur again in another block."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: list[pa.Array] = []
        self._keys: list[np.ndarray] = []
        self._held = 0
        self._texts, self._hashes = Spilled(), Spilled()
        self._sizes: list[tuple[int, int]] = []
        self._may_spill = True

    def add_all(self, texts: pa.Array, file: int, rows: np.ndarray) -> int:
        """Take strings, each met in a row; the number of the first."""
        first = len(self)
        self._one_by_one()
        self._take(text_array(*buffers_of(texts)), keys_of(texts))
        self.file.add(np.full(len(texts), file, np.int32))
        self.row.add(rows)
        return first

    def finished(self) -> tuple[Sequence[str], np.ndarray]:
        """(all texts, their keys uint64 `[n, 2]`)."""
        if not self._chunks and not self._sizes:
            return self.references, text_keys(self.references)
        self._one_by_one()
        if self._sizes:
            self._spill()
        written = sum(count for count, _ in self._sizes)
        hashes = self._hashes.mapped()[: 16 * written].view(np.uint64).reshape(-1, 2)
        texts = Texts([*self._mapped(), *self._chunks])
        keys = np.concatenate([hashes, *self._keys]) if self._keys else hashes
        self._chunks, self._keys, self._sizes = [], [], []
        return texts if len(texts) >= MANY else list(texts), keys

    def _one_by_one(self) -> None:
        """Keep in Arrow what was added one by one."""
        import pyarrow as pa

        if self.references:
            found = pa.array(self.references, pa.string())
            keys, start = text_keys(self.references), 0
            for one in [found] if isinstance(found, pa.Array) else found.chunks:
                self._take(one, keys[start : start + len(one)])
                start += len(one)
            self.references, self.ids = [], {}

    def _take(self, texts: pa.Array, keys: np.ndarray) -> None:
        self._chunks.append(texts)
        self._keys.append(keys)
        self._held += texts.nbytes
        if self._held >= HELD:
            self._spill()

    def _spill(self) -> None:
        """Write what is held to disk; if that can't be, it stays in memory."""
        done = 0
        try:
            for chunk, keys in zip(self._chunks, self._keys, strict=True):
                if not self._may_spill:
                    break
                offsets, data = buffers_of(chunk)
                inside = data[offsets[0] : offsets[-1]]
                padding = np.zeros(_padding(len(chunk), len(inside)), np.uint8)
                self._texts.add([offsets - offsets[0], inside, padding])
                self._hashes.add([keys])
                self._sizes.append((len(chunk), len(inside)))
                done += 1
        except OSError:
            self._may_spill = False
        self._chunks, self._keys, self._held = self._chunks[done:], self._keys[done:], 0

    def _mapped(self) -> list[pa.Array]:
        """The chunks that are on disk."""
        held, at, chunks = self._texts.mapped(), 0, []
        for count, size in self._sizes:
            end = at + 4 * (count + 1)
            offsets = held[at:end].view(np.int32)
            chunks.append(text_array(offsets, held[end : end + size]))
            at = end + size + _padding(count, size)
        return chunks


def _padding(count: int, size: int) -> int:
    """Bytes after so many texts of so many bytes that align what follows to 8."""
    return -(4 * (count + 1) + size) % 8
