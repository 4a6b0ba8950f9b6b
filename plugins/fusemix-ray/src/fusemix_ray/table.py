"""The items to encode as a table on a disk that all machines share: one record batch a block.

Workers are told if it is and which block is theirs; no item goes through Ray. It is an Arrow
file, so a block is read without the others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fusemix_core.data.items import Items, Origin
from fusemix_core.data.references import (
    CellReference,
    Cells,
    FileReference,
    HeldReference,
    Reference,
    SliceReference,
)
from fusemix_core.disk import Advice, explained, is_stray

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "items.arrow"
_UNUSED = 86400
"""Seconds."""
FOLDER = ".ray-"
"""How the names of the folders begin that tables are in."""
_ADVICE = Advice(
    "Free some space on the disk that the machines share.",
    "Set FUSEMIX_HOME to a folder that all machines of the cluster may write to.",
    "Check the disk.",
)
_TEXT, _FILE, _SLICE, _CELL, _HELD = range(5)
_SCHEMA = pa.schema(
    {
        "first": pa.uint64(),  # halves of the key
        "second": pa.uint64(),
        "source": pa.large_binary(),  # where it was read
        "row": pa.int64(),
        "kind": pa.int8(),
        "text": pa.large_binary(),  # a text, a path, or what bytes are called
        "path": pa.large_binary(),  # of an archive
        "offset": pa.int64(),
        "size": pa.int64(),
        "cells": pa.int32(),  # the number of a table, the column and the row in it
        "column": pa.string(),
        "index": pa.int64(),
        "data": pa.large_binary(),
    }
)


class Table:
    """A table as it is written: `path`, and the `cells` that its items refer to by number.

    It counts as in use for as long as it is open. Use as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.cells: dict[Cells, int] = {}

    def __enter__(self) -> Table:
        with explained(f"The table {self.path}", _ADVICE):
            self._file = open(self.path, "wb")  # noqa: SIM115  closed at the end
        if fcntl is not None:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def touch(self) -> None:
        """Note that the table is still in use."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, items: Items, blocks: Sequence[np.ndarray]) -> None:
        """Write the items of each block. No more than one block is in memory at a time.

        Raises `ArtefactError` if the disk is full or can't be written.
        """
        with explained(f"The table {self.path}", _ADVICE):
            with pa.ipc.new_file(self._file, _SCHEMA) as writer:
                for block in blocks:
                    writer.write_batch(self._batch(items.select(block)))
            self._file.flush()
            os.fsync(self._file.fileno())  # a network disk shows others only what was synced

    def _batch(self, items: Items) -> pa.RecordBatch:
        count = len(items)
        origins = (items.origin[i] for i in range(count))
        sources, rows = zip(*origins, strict=True) if count else ((), ())
        columns: dict[str, Any] = {"first": items.keys[:, 0], "second": items.keys[:, 1]}
        columns |= {"source": [_bytes(source) for source in sources], "row": rows}
        references = [self._reference(reference) for reference in items.references]
        for name in _SCHEMA.names[4:]:
            columns[name] = [fields.get(name) for fields in references]
        arrays = [pa.array(columns[f.name], f.type) for f in _SCHEMA]
        return pa.record_batch(arrays, schema=_SCHEMA)

    def _reference(self, reference: str | Reference) -> dict:
        """The columns of one reference."""
        match reference:
            case str():
                return {"kind": _TEXT, "text": _bytes(reference)}
            case FileReference(path):
                return {"kind": _FILE, "text": _bytes(path)}
            case SliceReference(path, offset, size, name):
                where = {"path": _bytes(path), "offset": offset, "size": size}
                return {"kind": _SLICE, "text": _bytes(name), **where}
            case CellReference(cells, column, index):
                number = self.cells.setdefault(cells, len(self.cells))
                return {"kind": _CELL, "cells": number, "column": column, "index": index}
            case HeldReference(data, name):
                return {"kind": _HELD, "text": _bytes(name), "data": data}
        raise TypeError(f"{type(reference).__name__} is not a reference")


def read_block(path: str, number: int, modality: str, takes: str, cells: Sequence[Cells]) -> Items:
    """The items of one block. Raises OSError if the table can't be read."""
    with pa.memory_map(path) as file:
        batch = pa.ipc.open_file(file).get_batch(number)
        columns = {name: batch.column(name) for name in ("first", "second", "row")}
        numbers = {name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()}
        keys = np.stack([numbers["first"], numbers["second"]], axis=1)
        sources = [_str(source) for source in batch.column("source").to_pylist()]
        references = list(_references(batch, cells))
        row = numbers["row"].copy()
    files = {name: i for i, name in enumerate(dict.fromkeys(sources))}
    origin = Origin(tuple(files), np.array([files[s] for s in sources], np.int64), row)
    return Items(modality, takes, references, keys, origin)


def _references(batch: pa.RecordBatch, cells: Sequence[Cells]) -> Iterator[str | Reference]:
    names = _SCHEMA.names[4:]
    for fields in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
        kind, text, path, offset, size, number, column, index, data = fields
        if kind == _TEXT:
            yield _str(text)
        elif kind == _FILE:
            yield FileReference(_str(text))
        elif kind == _SLICE:
            yield SliceReference(_str(path), offset, size, _str(text))
        elif kind == _CELL:
            yield CellReference(cells[number], column, index)
        else:
            yield HeldReference(data, _str(text))


def _bytes(text: str) -> bytes:
    """A text, or a path with bytes in it that are not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def _str(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def strays(home: Path) -> list[Path]:
    """The folders of tables that no living run contains: not locked, and not used for a day, as
    locks of some shared disks reach no other machine."""
    oldest, found = time.time() - _UNUSED, []
    for path in sorted(home.glob(f"{FOLDER}*/{NAME}")):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest and is_stray(path):
                found.append(path.parent)
    return found
