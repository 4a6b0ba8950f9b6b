"""Parquet manifests. Media may be paths, bytes, or structs of bytes and path as on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.foreign import head_of, what_is
from fusemix_core.data.labels import named, names_in_schema
from fusemix_core.data.references import CellReference, Fault
from fusemix_core.data.rows import Block, Note, Reader, Row, one_by_one
from fusemix_core.errors import DataError

_BATCH = 256
MAX_GROUP = 4 << 30
"""Bytes that a row group may take unpacked: media are read by the row group."""
_MAX_RATIO = 1000
"""A row group that unpacks to so many times its file's size contains nothing pairs are made of."""
_SMALL = 64 << 20
_HELD = 512 << 20
_WIDE = 16 << 20
"""Bytes of a row from which on what is once in a dictionary is not repeated for each row."""
_PLAIN_BATCH = 1 << 14
"""Rows that are taken at once where all columns are plain."""
_MOST_REJECTED = 1_000_000


class ParquetReader(Reader):
    """`.parquet`. Class labels of files that `datasets` wrote are read as their names."""

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".parquet", ".pq")

    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        return one_by_one(self.blocks(path))

    def blocks(self, path: Path) -> Iterator[Row | Rejected | Block]:
        cells = ParquetCells(str(path.absolute()))
        number = 0
        with _open(path) as file, _open(path, read_dictionary=_leaves(file)) as packed:
            labels = names_in_schema(file.schema_arrow.metadata)
            plain = _is_plain(file.schema_arrow) and not labels
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    _check_size(file, group, path)
                    widest, at = _widest(packed, group), 0
                    count = min(max(_HELD // widest, 1), _BATCH)
                    if plain:
                        count = min(max(_HELD // _longest(packed, group), 1), _PLAIN_BATCH)
                    source = packed if widest > _WIDE else file
                    for batch in source.iter_batches(count, row_groups=[group]):
                        if plain and (columns := _columns(batch)):
                            yield Block(str(path), number + 1, columns)
                            number += batch.num_rows
                            at += batch.num_rows
                            continue
                        names = [(name, f"{group}/{name}") for name in batch.schema.names]
                        for values in arrow_rows(batch):
                            number += 1
                            row = {
                                name: media_value(value, cells, place, at)
                                for (name, place), value in zip(names, values, strict=True)
                            }
                            for name in labels.keys() & row.keys():
                                row[name] = named(row[name], labels[name])
                            at += 1
                            yield Row(str(path), number, row)
                    if number != end:
                        raise DataError("a row group has other rows than it says")
                except Exception as error:  # Arrow meets any bytes and raises many things
                    reason = f"can't be read as Parquet: {error}"
                    last = min(end, number + _MOST_REJECTED)
                    for bad in range(number + 1, last + 1):
                        yield Rejected(str(path), bad, "", reason)
                    if last < end:
                        more = f"{end - last:,} rows from here on can't be read either"
                        yield Rejected(str(path), last + 1, "", more)
                    number = end


def _is_plain(schema: Any) -> bool:
    """Whether all columns are texts, numbers or bools, each under a name of its own."""
    import pyarrow.types as kinds

    tests = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating,
             kinds.is_boolean)  # fmt: skip
    return len(set(schema.names)) == len(schema.names) > 0 and all(
        any(test(column.type) for test in tests) for column in schema
    )


def _columns(batch: Any) -> dict[str, Any]:
    """The columns of a batch as a block has them; none if a text in them is not Unicode."""
    import pyarrow as pa

    columns = {}
    try:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type):
                column = column.cast(pa.string())
            column.validate(full=True)
            columns[name] = column
    except pa.ArrowException:
        return {}
    return columns if batch.num_rows else {}


def _open(path: str | Path, **options: Any) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, **options)
    except Exception as error:
        head = head_of(path)
        if (found := what_is(head)) is not None and not head.startswith(b"PAR1"):
            raise DataError(f"this is {found[0]}", found[1], path=path) from error
        raise DataError(f"can't be read as Parquet: {error}", path=path) from error


def _leaves(file: Any, column: str = "") -> list[str]:
    """The paths of texts and bytes in a file's schema, of all columns or of one."""
    found = [file.schema.column(i) for i in range(len(file.schema))]
    paths = [leaf.path for leaf in found if leaf.physical_type == "BYTE_ARRAY"]
    return [path for path in paths if not column or path.partition(".")[0] == column]


def _check_size(file: Any, group: int, path: Path) -> None:
    size = file.metadata.row_group(group).total_byte_size
    most = min(MAX_GROUP, max(_SMALL, _MAX_RATIO * path.stat().st_size))
    if size > most:
        raise DataError(
            f"a row group unpacks to {size >> 20:,} MiB, the limit is {most >> 20:,} MiB: write "
            "smaller ones, such as row_group_size=1000"
        )


def _widest(packed: Any, group: int, *column: str) -> int:
    """About the most bytes that a row of a group can take.

    Rows repeat what is once in a dictionary, so that a small file may contain a lot of bytes: this
    reads one row, and the dictionaries whole, from a file opened so that it keeps them.
    """
    batch = next(packed.iter_batches(1, row_groups=[group], columns=column or None), None)
    return max(batch.nbytes, 1) if batch else 1


def _longest(packed: Any, group: int) -> int:
    """The most bytes that a row's texts can take that are once in dictionaries. Those that stand
    in none take no more than the file says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batch = next(packed.iter_batches(1, row_groups=[group]), None)
    columns = batch.columns if batch else []
    held = [column.dictionary for column in columns if pa.types.is_dictionary(column.type)]
    return 1 + sum(pc.max(pc.binary_length(one)).as_py() or 0 for one in held)


def arrow_rows(batch: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch. Bytes are left out, b"" in their place: they are only referred to. A
    value that Python can't hold is a `Fault`."""
    columns = [_without_bytes(column) for column in batch.columns]
    try:
        lists = [column.to_pylist() for column in columns]
    except Exception:
        lists = [[_value(one) for one in column] for column in columns]
    return zip(*lists, strict=True)


def _without_bytes(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pc.if_else(column.is_valid(), pa.scalar(b""), pa.scalar(None, pa.binary()))
    if pa.types.is_struct(kind) and kind.num_fields:
        parts = [_without_bytes(part) for part in column.flatten()]
        names = [field.name for field in kind]
        return pa.StructArray.from_arrays(parts, names, mask=column.is_null())
    return column


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception as error:
        return Fault(f"can't be read: {error}")


def media_value(value: Any, cells: Any, column: str, index: int) -> Any:
    """`value` of a cell, with bytes replaced by a reference to where they are."""
    if isinstance(value, bytes):
        return CellReference(cells, column, index)
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        return (
            value.get("path") if value.get("bytes") is None else CellReference(cells, column, index)
        )
    if isinstance(value, list) and any(isinstance(v, bytes | dict) for v in value):
        return Fault("contains a list of media or objects; give one a row")
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
            try:
                if self._held[0] != column:
                    group, _, name = column.partition("/")
                    self._held = ("", None)  # free one row group before the next is read
                    self._held = (column, self._column(int(group), name))
                return cell_bytes(self._held[1][index].as_py())
            except (DataError, OSError):
                raise
            except Exception as error:
                raise OSError(f"the file can't be read any more: {error}") from error

    def _column(self, group: int, name: str) -> Any:
        """A column of a row group; as a dictionary where its values may repeat without bounds."""
        file = self._file = self._file or _open(self.stamp)
        packed = _open(self.stamp, read_dictionary=_leaves(file, name))
        if _widest(packed, group, name) * file.metadata.row_group(group).num_rows > MAX_GROUP:
            file = packed
        return file.read_row_group(group, columns=[name]).column(name)

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
        raise OSError("the cell contains no bytes")
    return value
