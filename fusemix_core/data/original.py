"""The rows of the data as they were read, with all their columns, and a table to write them to."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fusemix_core.config import DataConfig
from fusemix_core.data.references import Fault, Reference
from fusemix_core.data.rows import Row, is_missing, one_by_one
from fusemix_core.data.sources import expand, open_source
from fusemix_core.disk import TEMPORARY, flush
from fusemix_core.errors import ConfigError, DataError

_AT_ONCE = 4_096
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def original_rows(config: DataConfig) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """(file, row, column → value) of each row of the data that a reader can read, in order."""
    for source in config.located().source:
        for path in expand(source):
            read, _, _ = open_source(path, config)
            for row in one_by_one(read):
                if isinstance(row, Row):
                    yield row.path, row.number, row.values


def original_columns(config: DataConfig) -> list[str]:
    """The columns of the first rows of each file."""
    found: dict[str, None] = {}
    for source in config.located().source:
        for path in expand(source):
            found |= dict.fromkeys(open_source(path, config)[1])
    return list(found)


class TableWriter:
    """Writes rows to a table, a part at a time; the file is there when all of it is.

    Cells of media in archives and in memory are left empty: a table can't name them.

    Args:
        path: ends in one of `SUFFIXES`, which says the form.
        columns: the user's, then those that are added.
        kinds: column → `int` or `float`, of those that are added; all others are texts in
            Parquet, and as they were read in JSON.

    Raises:
        ConfigError: the form isn't known.

    Example:
        with TableWriter("scored.csv", ["image", "score"], {"score": float}) as table:
            table.write([{"image": "a.png", "score": 0.3}])
    """

    def __init__(
        self, path: str | Path, columns: Sequence[str], kinds: Mapping[str, type] | None = None
    ) -> None:
        self.path, self.columns, self.kinds = Path(path), list(columns), dict(kinds or {})
        self.suffix = self.path.suffix.lower()
        if self.suffix not in SUFFIXES:
            raise ConfigError(f"{path} is not a table.", f"Its name ends in {', '.join(SUFFIXES)}.")
        self._temporary = self.path.with_name(f".{self.path.name}{TEMPORARY}")
        self._file: IO[str] | None = None
        self._parquet: Any = None
        self._csv: Any = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            types = {int: pa.int64(), float: pa.float64()}
            kinds = [(name, self.kinds.get(name, str)) for name in self.columns]
            fields = [(name, types.get(kind, pa.string())) for name, kind in kinds]
            self._schema = pa.schema(fields)
            self._parquet = pq.ParquetWriter(self._temporary, self._schema)
            return self
        self._file = open(self._temporary, "w", encoding="utf-8", errors="surrogateescape",
                          newline="")  # fmt: skip
        if self.suffix != ".jsonl":
            delimiter = "\t" if self.suffix == ".tsv" else ","
            self._csv = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
            self._csv.writerow(self.columns)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for open_ in filter(None, (self._parquet, self._file)):
            open_.close()
        if kind is None:
            flush(self._temporary)
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)

    def write_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows as they come, some thousand at a time."""
        rows = iter(rows)
        while part := list(islice(rows, _AT_ONCE)):
            self.write(part)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; a column that one lacks is empty."""
        if self._parquet is not None:
            import pyarrow as pa

            columns = [
                pa.array([self._value(f.name, row.get(f.name)) for row in rows], f.type)
                for f in self._schema
            ]
            self._parquet.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        elif self._csv is not None:
            lines = [[_text(row.get(name)) for name in self.columns] for row in rows]
            self._csv.writerows(lines)
        else:
            assert self._file is not None, "a writer is used inside `with`"
            for row in rows:
                cells = {name: _plain(row.get(name)) for name in self.columns}
                self._file.write(json.dumps(cells, ensure_ascii=False) + "\n")

    def _value(self, name: str, value: Any) -> Any:
        if name in self.kinds:
            return None if is_missing(value) else value
        return _text(value) or None


def _plain(value: Any) -> Any:
    """A cell as JSON has it; None of media that no table can name."""
    if isinstance(value, bytes | Fault) or is_missing(value):
        return None
    if isinstance(value, Reference):
        return str(value) if os.path.exists(str(value)) else None
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, str | int | float | bool) else str(value)


def _text(value: Any) -> str:
    """A cell as CSV has it."""
    value = _plain(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def check_new_columns(columns: Sequence[str], added: Sequence[str]) -> dict[str, str]:
    """added column → the name that it gets: with `fusemix_` before it if the data have it already.

    Raises:
        DataError: they have that, too.
    """
    clash = bool(set(columns) & set(added))
    names = {name: f"fusemix_{name}" if clash else name for name in added}
    if both := sorted(set(columns) & set(names.values())):
        raise DataError(f"The data have a column '{both[0]}' already.", "Rename it in the data.")
    return names
