"""Tables in Python's memory: data frames, columns or rows as lists, `datasets.Dataset` objects.

They are known by their methods, so that none of their packages is imported.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from numbers import Number
from os import PathLike
from pathlib import Path
from typing import Any

from fusemix_core.config import DataConfig, from_dict
from fusemix_core.data.labels import class_names, named
from fusemix_core.data.rows import Reader, Row
from fusemix_core.errors import DataError

_NAME = re.compile(r"<table in memory, [0-9]+ rows, [0-9a-f]+>")
_SOURCES = ("source", "validation", "test")
_MOST_HELD = 16
"""Tables; the one that was given first is let go."""
_BATCH = 100
_KINDS = (
    "a pandas or polars DataFrame, a pyarrow Table, a datasets.Dataset or DatasetDict, column → "
    "list, or a list of rows (column → value)"
)
_held: OrderedDict[str, Table] = OrderedDict()


@dataclass(frozen=True)
class Table:
    """columns: their names. count: of the rows. rows: gives (column → cell, split or None), again
    at each call."""

    columns: tuple[str, ...]
    count: int
    rows: Callable[[], Iterator[tuple[Mapping[str, Any], str | None]]]


class HeldReader(Reader):
    """Reads a table in memory."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def matches(self, path: Path) -> bool:
        return str(path) in _held

    def rows(self, path: Path) -> Iterator[Row]:
        """Paths in cells are relative to the working folder."""
        for number, (cells, split) in enumerate(self.table.rows(), start=1):
            values = {column: _cell(cells.get(column)) for column in self.table.columns}
            yield Row(str(path), number, values, split, base=".")


def held(source: str | Path) -> Table | None:
    """The table that goes by this name; None if it is not such a name.

    Raises `DataError` if the table is no longer held.
    """
    name = str(source)
    if name in _held:
        return _held[name]
    if _NAME.fullmatch(name):
        raise DataError(
            "the data were a table in memory, which this process does not have",
            "Give them again (data=… in Python), or as a file.",
            path=name,
        )
    return None


def data_table(data: Any) -> dict[str, Any]:
    """The fields of `DataConfig` from these, or from a path, paths, or a table.

    A table goes by a name that tells its content: a run of it can be resumed with equal data. If
    some cell's content can't be told, the name is new each time, and resuming is refused.

    Raises:
        DataError: If it is nothing of these.
    """
    if isinstance(data, DataConfig):
        return {f.name: getattr(data, f.name) for f in fields(data)}
    known = {f.name for f in fields(DataConfig)}
    table = dict(data) if isinstance(data, Mapping) and known >= data.keys() else {"source": data}
    if isinstance(data, Mapping) and "source" in data:
        table = dict(data)
    for field in _SOURCES:
        if table.get(field) is None:
            continue
        names = _sources(table[field])
        if field != "source" and len(names) != 1:
            raise DataError(f"{field} is one file or table, not {len(names)}.")
        table[field] = names if field == "source" else names[0]
    return table


def data_config(data: Any) -> DataConfig:
    """A `DataConfig` of what `data_table` takes."""
    return (
        data if isinstance(data, DataConfig) else from_dict(DataConfig, data_table(data), "data.")
    )


def _sources(value: Any) -> list[str]:
    if isinstance(value, str | PathLike):
        return [str(value)]
    if (table := _table(value)) is not None:
        return [_hold(table)]
    if isinstance(value, Sequence) and len(value):
        return [name for one in value for name in _sources(one)]
    raise DataError(
        f"The data are a {type(value).__name__}.",
        f"Give the path of a file or folder, or {_KINDS}.",
    )


def _hold(table: Table) -> str:
    name = f"<table in memory, {table.count} rows, {_digest(table)}>"
    _held[name] = table
    _held.move_to_end(name)
    while len(_held) > _MOST_HELD:
        _held.popitem(last=False)
    return name


def _table(value: Any) -> Table | None:
    """What a value contains as a table; None if it is none."""
    if hasattr(value, "column_names") and hasattr(value, "with_format"):
        return _of_dataset(value)
    if isinstance(value, Mapping):
        parts = list(value.values())
        if parts and all(hasattr(part, "with_format") for part in parts):
            return _of_splits({str(name): _of_dataset(part) for name, part in value.items()})
        return _of_columns({str(name): _list(column) for name, column in value.items()})
    if hasattr(value, "column_names") and hasattr(value, "to_pydict"):
        return _of_columns(value.to_pydict())
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        names = list(value.columns)
        if len(set(names)) < len(names):
            raise DataError("Two columns of the table have one name.", "Rename one of them.")
        return _of_columns({str(name): _list(value[name]) for name in names})
    if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
        columns = dict.fromkeys(str(name) for row in value for name in row)
        return Table(tuple(columns), len(value), lambda: ((row, None) for row in value))
    return None


def _of_columns(columns: Mapping[str, Sequence[Any]]) -> Table:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(
            f"The columns of the table differ in length: {lengths}."
            if lengths
            else "The table has no columns.",
            "Give each column one entry per row, None if it is missing.",
        )
    count = next(iter(lengths.values()))

    def rows() -> Iterator[tuple[dict[str, Any], None]]:
        for i in range(count):
            yield {name: column[i] for name, column in columns.items()}, None

    return Table(tuple(columns), count, rows)


def _list(column: Any) -> Sequence[Any]:
    for method in ("to_list", "tolist"):
        if hasattr(column, method):
            return getattr(column, method)()
    if isinstance(column, str | bytes) or not isinstance(column, Sequence):
        raise DataError(
            f"A column of the table is a {type(column).__name__}, not a list.",
            f"Data are the path of a file or folder, the fields of DataConfig, or {_KINDS}.",
        )
    return column


def _of_dataset(dataset: Any) -> Table:
    """Of a `datasets.Dataset`, as it is stored: media aren't decoded, class labels are named."""
    if not hasattr(dataset, "__len__"):
        raise DataError(
            f"A {type(dataset).__name__} can't be read twice.",
            "Give a datasets.Dataset: load_dataset(...) without streaming.",
        )
    names = class_names(dataset.features.to_dict())
    stored = dataset.with_format("arrow")

    def rows() -> Iterator[tuple[dict[str, Any], None]]:
        for start in range(0, len(dataset), _BATCH):
            for row in stored[start : start + _BATCH].to_pylist():
                yield {c: named(v, names[c]) if c in names else v for c, v in row.items()}, None

    return Table(tuple(dataset.column_names), len(dataset), rows)


def _of_splits(parts: Mapping[str, Table]) -> Table:
    columns = dict.fromkeys(column for part in parts.values() for column in part.columns)

    def rows() -> Iterator[tuple[Mapping[str, Any], str]]:
        for split, part in parts.items():
            for row, _ in part.rows():
                yield row, split

    return Table(tuple(columns), sum(part.count for part in parts.values()), rows)


def _cell(value: Any) -> Any:
    """A cell as readers give it: what packages have for nothing as None, arrays of texts as lists,
    numbers and dates as Python's."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, str | bytes | bool | int | float):
        return str(value) if isinstance(value, str) else value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind and getattr(value, "ndim", None) == 0:
        return _cell(value.item())
    if kind in "OUS" and kind and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_cell(one) for one in value]
    if isinstance(value, date):
        return value.isoformat()
    return value


def _digest(table: Table) -> str:
    digest = hashlib.sha256(repr(table.columns).encode("utf-8", "surrogatepass"))
    for cells, split in table.rows():
        for column in table.columns:
            if not _feed(digest, _cell(cells.get(column))):
                return uuid.uuid4().hex[:16]
        digest.update(f"\0{split}".encode())
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> bool:
    """Add a cell's content to a digest; False if it can't be told."""
    if isinstance(value, list | tuple):
        digest.update(f"\0list {len(value)}".encode())
        return all(_feed(digest, one) for one in value)
    if isinstance(value, Mapping):
        return all(_feed(digest, list(entry)) for entry in value.items())
    if isinstance(value, bytes):
        content: Iterable[Any] = (value,)
    elif value is None or isinstance(value, str | Number | Path):
        content = (repr(value).encode("utf-8", "surrogatepass"),)
    elif hasattr(value, "tobytes"):
        shape = getattr(value, "shape", None) or (value.size, getattr(value, "mode", ""))
        content = (f"{shape}{getattr(value, 'dtype', '')}".encode(), value.tobytes())
    else:
        return False
    digest.update(f"\0{type(value).__name__}\0".encode())
    for part in content:
        digest.update(part)
    return True
