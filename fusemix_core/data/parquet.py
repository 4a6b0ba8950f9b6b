"""Parquet manifests. Media may be paths, bytes, or structs of bytes and path as on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.references import CellReference, Fault
from fusemix_core.data.rows import Row
from fusemix_core.errors import DataError

_BATCH = 256


class ParquetReader:
    """`.parquet`."""

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".parquet", ".pq")

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
        import pyarrow as pa

        cells = ParquetCells(str(path.absolute()))
        number = 0
        try:
            with _open(path) as file:
                for group in range(file.num_row_groups):
                    at = 0
                    for batch in file.iter_batches(_BATCH, row_groups=[group]):
                        for values in batch.to_pylist():
                            number += 1
                            row = {
                                name: media_value(value, cells, f"{group}/{name}", at)
                                for name, value in values.items()
                            }
                            at += 1
                            yield Row(str(path), number, row)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"can't be read as Parquet: {error}", path=path, row=number + 1
            ) from error


def _open(path: str | Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"can't be read as Parquet: {error}", path=path) from error


def media_value(value: Any, cells: Any, column: str, index: int) -> Any:
    """`value` of a cell, with bytes replaced by a reference to where they are."""
    if isinstance(value, bytes):
        return CellReference(cells, column, index)
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        return (
            value.get("path") if value.get("bytes") is None else CellReference(cells, column, index)
        )
    if isinstance(value, list) and any(isinstance(v, bytes | dict) for v in value):
        return Fault("holds a list of media or objects; give one a row")
    return value


class ParquetCells:
    """Random access to the bytes in a Parquet file, a row group of one column at a time."""

    def __init__(self, path: str) -> None:
        self.stamp = path
        self._forget()

    def _forget(self) -> None:
        self._file: Any = None
        self._held: tuple[str, Any] = ("", None)
        self._lock = Lock()  # decoding threads share the row group that is held

    def read(self, column: str, index: int) -> bytes:
        """The bytes in row `index` of `column`, which is `GROUP/NAME`."""
        with self._lock:
            if self._held[0] != column:
                group, _, name = column.partition("/")
                self._file = self._file or _open(self.stamp)
                self._held = ("", None)  # free one row group before the next is read
                table = self._file.read_row_group(int(group), columns=[name])
                self._held = (column, table.column(name))
            return cell_bytes(self._held[1][index].as_py())

    def __str__(self) -> str:
        return self.stamp

    def __getstate__(self) -> dict[str, Any]:
        return {"stamp": self.stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParquetCells) and other.stamp == self.stamp

    def __hash__(self) -> int:
        return hash(self.stamp)


def cell_bytes(value: Any) -> bytes:
    """The bytes in a cell: bytes, or a struct that holds them."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise OSError("the cell holds no bytes")
    return value
