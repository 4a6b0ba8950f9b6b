"""Datasets that the `datasets` package saved on disk, read by Arrow only: what such a folder says
is data, and nothing in it names a class to make or a file elsewhere to open."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.labels import class_names, named
from fusemix_core.data.parquet import arrow_rows, cell_bytes, media_value
from fusemix_core.data.rows import SPLIT_NAMES, Note, Reader, Row
from fusemix_core.errors import DataError, short

_BATCH = 256
_MAX_JSON = 16 << 20


class SavedReader(Reader):
    """A folder from `Dataset.save_to_disk` or `DatasetDict.save_to_disk` (whose keys are splits).

    Class labels are read as their names.
    """

    def matches(self, path: Path) -> bool:
        return path.is_dir() and (
            (path / "dataset_dict.json").is_file()
            or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file())
        )

    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        if not (path / "dataset_dict.json").is_file():
            yield from _rows(path, None)
            return
        parts = sorted(p.parent for p in path.glob("*/state.json"))
        unknown = [p.name for p in parts if p.name.lower() not in SPLIT_NAMES]
        if unknown and len(parts) > 1:
            raise DataError(
                f"the splits {', '.join(unknown)} are none of train, validation and test",
                f"Give the folders one by one, such as --data {path / unknown[0]}",
                path=path,
            )
        listed: Any = _json(path / "dataset_dict.json").get("splits")
        lost = {n for n in listed if isinstance(n, str)} if isinstance(listed, list) else set()
        for name in sorted(lost - {part.name for part in parts}):
            yield Note(f"{path}: the split '{short(name)}' is listed, but not there.")
        for part in parts:
            yield from _rows(part, None if part.name in unknown else part.name)


def _rows(path: Path, split: str | None) -> Iterator[Row | Rejected]:
    table = _open(path)
    labels = class_names(_json(path / "dataset_info.json").get("features"))
    cells = SavedCells(str(path.absolute()))
    index = 0
    for batch in table.to_batches(_BATCH):
        for row in arrow_rows(batch):
            values = {
                name: media_value(value, cells, name, index)
                for name, value in zip(table.column_names, row, strict=True)
            }
            for name in labels.keys() & values.keys():
                values[name] = named(values[name], labels[name])
            index += 1
            yield Row(str(path), index, values, split=split)


def _open(path: Path) -> Any:
    """The Arrow table in a folder, mapped from its files, which are those that state.json lists."""
    import pyarrow as pa

    state = _json(path / "state.json")
    try:
        tables = []
        for name in [file["filename"] for file in state["_data_files"]]:
            if os.path.basename(name) != name or not os.path.isfile(path / name):
                raise ValueError(f"state.json lists '{name}', which is not a file of it")
            table = pa.ipc.open_stream(pa.memory_map(str(path / name))).read_all()
            table.validate(full=True)  # Arrow trusts what it maps, and would read beyond its end
            tables.append(table)
        return pa.concat_tables(tables)
    except Exception as error:  # Arrow meets any bytes and raises many things
        raise DataError(f"can't be read as a saved dataset: {error}", path=path) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise OSError(f"{path.name} is not a file")
        with open(path, "rb") as file:
            values = json.loads(file.read(_MAX_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"can't be read as a saved dataset: {error}", path=path) from error
    if not isinstance(values, dict):
        raise DataError("can't be read as a saved dataset: no JSON object", path=path)
    return values


class SavedCells:
    """Random access to the bytes in a saved dataset."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamp = str(Path(path, "state.json"))
        self._forget()

    def _forget(self) -> None:
        self._table: Any = None
        self._lock = Lock()

    def read(self, column: str, index: int) -> bytes:
        with self._lock:
            if self._table is None:
                self._table = _open(Path(self.path))
        return cell_bytes(self._table.column(column)[index].as_py())

    def __str__(self) -> str:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "stamp": self.stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedCells) and other.path == self.path

    def __hash__(self) -> int:
        return hash((SavedCells, self.path))
