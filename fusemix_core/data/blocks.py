"""Blocks: rows of a table whose columns can be taken at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Block:
    """Rows of one table, one after another, none of which the reader rejects.

    path: the file. first: the number of the first row. values: column → an Arrow array of strings,
    numbers or bools, null where there is nothing; or the rows as dicts.
    """

    path: str
    first: int
    values: Mapping[str, pa.Array] | Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        if isinstance(self.values, Mapping):
            return len(next(iter(self.values.values())))
        return len(self.values)

    def has(self, column: str) -> bool:
        """Whether any row has the column."""
        if isinstance(self.values, Mapping):
            return column in self.values
        return any(column in row for row in self.values)

    def texts(self, column: str) -> pa.Array | None:
        """The texts of a column; None if it holds anything else."""
        import pyarrow as pa

        if isinstance(self.values, Mapping):
            found = self.values.get(column)
            return found if found is not None and found.type == pa.string() else None
        try:
            found = pa.array([row.get(column) for row in self.values], pa.string())
        except (pa.ArrowException, TypeError, ValueError):
            return None
        return found if isinstance(found, pa.Array) else None

    def distinct(self, column: str) -> tuple[list[Any], np.ndarray]:
        """(values, None among them where there is nothing; int64 which of them each row has)."""
        cells = self.values.get(column) if isinstance(self.values, Mapping) else self.texts(column)
        if cells is None:
            rows = [] if isinstance(self.values, Mapping) else self.values
            values = [row.get(column) for row in rows] or [None]
            return values, np.arange(len(self)) if rows else np.zeros(len(self), np.int64)
        found = cells.dictionary_encode(null_encoding="encode")
        return found.dictionary.to_pylist(), found.indices.to_numpy().astype(np.int64)

    def split(self, count: int) -> tuple[Block, Block]:
        """The first `count` rows, and the others."""
        if isinstance(self.values, Mapping):
            head = {name: column.slice(0, count) for name, column in self.values.items()}
            tail = {name: column.slice(count) for name, column in self.values.items()}
        else:
            head, tail = self.values[:count], self.values[count:]
        return Block(self.path, self.first, head), Block(self.path, self.first + count, tail)

    def row(self, i: int) -> Row:
        """Row i by itself."""
        if isinstance(self.values, Mapping):
            values = {name: column[i].as_py() for name, column in self.values.items()}
        else:
            values = self.values[i]
        return Row(self.path, self.first + i, values)

    def rows(self) -> Iterator[Row]:
        """The rows one by one."""
        if not isinstance(self.values, Mapping):
            for i, values in enumerate(self.values):
                yield Row(self.path, self.first + i, values)
            return
        lists = [column.to_pylist() for column in self.values.values()]
        for i, cells in enumerate(zip(*lists, strict=True)):
            yield Row(self.path, self.first + i, dict(zip(self.values, cells, strict=True)))
