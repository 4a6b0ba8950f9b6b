"""What a reader yields, and the interface that a plugin's reader implements."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fusemix_core.data.dataset import Rejected

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PATH = 4096
"""Characters. No system opens a longer path."""
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What a split may be called (in lower case) → what it is called here."""
_SPLIT_FILE = re.compile(
    rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})"
    r"([-_. ]?(set|split|data|images?|imgs?|pairs|captions|of|\d))*",
    re.IGNORECASE,
)


def split_named(name: str) -> str | None:
    """The split that a folder or file is named after, such as `train2017`, `test_set` or
    `validation-00000-of-00002`; None for other names."""
    match = _SPLIT_FILE.fullmatch(name)
    return SPLIT_NAMES[match[1].lower()] if match else None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    path: the file it is in. number: 1-based, header not counted.
    values: column → None or "" (missing), a text, a media path relative to `base` (default: the
    folder of `path`), a reference (see `references`), bytes, a `Fault`, or a list of these.
    split: one of `SPLIT_NAMES` where the source itself tells.
    name: what the row is called if its number says little, such as the file of a folder's row.
    """

    path: str
    number: int
    values: Mapping[str, Any]
    split: str | None = None
    base: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know about a source; a reader may yield it among the rows."""

    text: str


@dataclass(frozen=True)
class Block:
    """Rows of one table, one after another, none of which the reader rejects.

    path: the file. first: the number of the first row. values: column → an Arrow array of strings,
    numbers or bools, null if there is nothing; or the rows as dicts.

    Example:
        `Block("a.lines", 1, {"image": pa.array(["0.png"]), "text": pa.array(["a dog"])})`
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
        """The texts of a column; None if it contains anything else."""
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
        """(values, None among them if there is nothing; int64 which of them each row has)."""
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


def one_by_one(
    found: Iterable[Row | Rejected | Note | Block],
) -> Iterator[Row | Rejected | Note]:
    """What `Reader.blocks` yields with the rows of blocks by themselves: `Reader.rows` for a reader
    that has these."""
    for one in found:
        if isinstance(one, Block):
            yield from one.rows()
        else:
            yield one


class Reader(ABC):
    """Reads one kind of source. Registered as kind `reader`; constructed with its options, all of
    which are keywords with a default.

    Attributes:
        general: It takes whatever no other reader takes, so it is asked last.

    Example:
        class Lines(Reader):
            def matches(self, path):
                return path.suffix == ".lines"

            def rows(self, path):
                for number, line in enumerate(path.read_text().splitlines(), start=1):
                    image, _, text = line.partition(" ")
                    yield Row(str(path), number, {"image": image, "text": text})
    """

    general: ClassVar[bool] = False

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Whether this existing file or folder is of the kind. Quick: the name, or a few bytes."""

    @abstractmethod
    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        """The rows, a `Rejected` in place of each that can't be read, and notes on the source.

        Nothing may vanish: a file of a folder that is in no row is a `Rejected` too, with
        `bad=False` if it is nothing that pairs are made of, such as a licence.

        Raises:
            DataError: The whole source is unusable.
        """

    def blocks(self, path: Path) -> Iterator[Row | Rejected | Note | Block]:
        """What `rows` yields, where rows that nothing is wrong with may come in blocks. By default
        none do."""
        return self.rows(path)

    @classmethod
    def sample(cls, folder: Path) -> Path | None:
        """Write a small source of its kind into an empty folder, for the conformance kit.

        Returns:
            Its path; None if it has none.
        """
        return None


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, "" or NaN."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value)
