"""The items of a collection in SQLite: where each is, and its columns. Written once, then read."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.disk import TEMPORARY, explained, flush
from fusemix_core.errors import ArtefactError, ConfigError, short
from fusemix_core.search.segments import ADVICE, digest_of
from fusemix_core.search.where import NUMBER, TEXT, Column, Condition, parse

SUFFIX = ".sqlite"
OWN = ("item", "modality")
"""Columns of every collection that a condition may name, if the data have none of that name."""
_AT_ONCE = 500
_FIXED = "key, modality, item, place, start, size"


@dataclass(frozen=True)
class Record:
    """A row of the table: an item, and where its bytes are.

    Attributes:
        key: 16 bytes.
        place: a file's path, "" if `item` is the content itself, None if it can't be read again.
        start, size: of the bytes in the file; None: all of it.
        values: of the columns, in their order.
    """

    key: bytes
    modality: str
    item: str
    place: str | None
    start: int | None
    size: int | None
    values: tuple[Any, ...]


def write_items(folder: Path, columns: Mapping[str, str], records: Iterable[Record]) -> str:
    """Write a table of items; the digest that names its file.

    Args:
        folder: Of the collection.
        columns: Name → `number` or `text`.
        records: All items.
    """
    temporary = folder / f".items.{os.getpid()}{TEMPORARY}"
    names = [f"c{i}" for i in range(len(columns))]
    kinds = ["REAL" if kind == NUMBER else "TEXT" for kind in columns.values()]
    own = "".join(f", {n} {k}" for n, k in zip(names, kinds, strict=True))
    marks = ",".join("?" * (6 + len(names)))
    with explained(f"The collection {folder}", ADVICE):
        temporary.unlink(missing_ok=True)
        try:
            connection = sqlite3.connect(temporary)
            try:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")  # flushed as a whole below
                connection.execute(
                    "CREATE TABLE items (id INTEGER PRIMARY KEY, key BLOB NOT NULL, modality TEXT "
                    f"NOT NULL, item TEXT NOT NULL, place TEXT, start INTEGER, size INTEGER{own})"
                )
                connection.executemany(
                    f"INSERT INTO items VALUES (NULL, {marks})",  # noqa: S608  marks only
                    (
                        (r.key, r.modality, r.item, r.place, r.start, r.size, *r.values)
                        for r in records
                    ),
                )
                connection.execute("CREATE INDEX by_key ON items (key)")
                connection.commit()
            except sqlite3.OperationalError as error:
                raise OSError(str(error)) from error
            finally:
                connection.close()
            flush(temporary)
            name = digest_of(temporary)
            os.replace(temporary, folder / f"{name}{SUFFIX}")
            flush(folder)
        finally:
            temporary.unlink(missing_ok=True)
    return name


class ItemTable:
    """The items of one state of a collection. Threads may share it.

    Args:
        path: The file.
        columns: Name → `number` or `text`, as it was written.
    """

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self.path, self.columns = path, dict(columns)
        own = {name: Column(name, TEXT) for name in OWN}
        named = {n: Column(f"c{i}", kind) for i, (n, kind) in enumerate(columns.items())}
        self._named = own | named
        self._local = threading.local()

    def condition(self, text: str) -> Condition:
        """A condition on the columns, as SQL. Raises `ConfigError`."""
        return parse(text, self._named)

    def count(self, modality: str | None = None) -> int:
        """How many items there are, of one modality or in all."""
        where, given = ("", ()) if modality is None else (" WHERE modality = ?", (modality,))
        return self._rows(f"SELECT COUNT(*) FROM items{where}", given)[0][0]  # noqa: S608

    def keys(self, modality: str, condition: Condition | None = None) -> np.ndarray:
        """uint64 `[n, 2]`: the keys of a modality's items, or of those that pass a condition."""
        where, given = "modality = ?", (modality,)
        if condition is not None:
            where, given = f"{where} AND {condition.sql}", (*given, *condition.parameters)
        query = f"SELECT key FROM items WHERE {where}"  # noqa: S608  parameters are bound
        return as_keys(row[0] for row in self._rows(query, given))

    def records(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Key → the item's record, for those that are there."""
        found = {}
        for at in range(0, len(keys), _AT_ONCE):
            some = list(keys[at : at + _AT_ONCE])
            marks = ",".join("?" * len(some))
            own = "".join(f", c{i}" for i in range(len(self.columns)))
            query = f"SELECT {_FIXED}{own} FROM items WHERE key IN ({marks})"  # noqa: S608
            for row in self._rows(query, some):
                found.setdefault(row[0], Record(*row[:6], values=tuple(row[6:])))
        return found

    def facets(
        self, column: str, where: str | None = None, modality: str | None = None
    ) -> list[tuple[Any, int]]:
        """(value, how many items have it) of a column, the most frequent first; None for items
        without a value. Counts only items that pass the condition `where`, and only those of a
        modality, if these are given. Raises `ConfigError`."""
        name, tests, given = self._column(column), [], []
        if where:
            condition = self.condition(where)
            tests.append(condition.sql)
            given += condition.parameters
        if modality is not None:
            tests.append("modality = ?")
            given.append(modality)
        passing = f"WHERE {' AND '.join(tests)}" if tests else ""
        query = f"SELECT {name}, COUNT(*) FROM items {passing} GROUP BY {name} ORDER BY 2 DESC, 1"  # noqa: S608
        return [(value, count) for value, count in self._rows(query, given)]

    def values(self, column: str, modality: str) -> dict[bytes, Any]:
        """Key → the value of a column, of a modality's items. Raises `ConfigError`."""
        query = f"SELECT key, {self._column(column)} FROM items WHERE modality = ?"  # noqa: S608
        return dict(self._rows(query, (modality,)))

    def _column(self, name: str) -> str:
        """The name of a column in SQL."""
        if name not in self._named:
            raise ConfigError(
                f"There is no column '{short(name)}'.", f"Columns: {', '.join(self._named)}."
            )
        return self._named[name].sql

    def described(self, record: Record) -> dict[str, Any]:
        """Column → value of a record; whole numbers as such."""
        return {
            name: int(v) if isinstance(v, float) and v.is_integer() else v
            for name, v in zip(self.columns, record.values, strict=True)
        }

    def _rows(self, query: str, given: Sequence[Any] = ()) -> list[tuple]:
        with self._errors():
            connection = getattr(self._local, "connection", None)
            if connection is None:
                uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
                connection = self._local.connection = sqlite3.connect(uri, uri=True)
            return connection.execute(query, given).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ArtefactError(
                f"{self.path} can't be read: {error}.",
                "Run `fusemix index update` on the index: it is made again.",
            ) from error


def as_keys(found: Iterable[bytes]) -> np.ndarray:
    """uint64 `[n, 2]` of keys of 16 bytes."""
    return np.frombuffer(b"".join(found), "<u8").reshape(-1, 2)
