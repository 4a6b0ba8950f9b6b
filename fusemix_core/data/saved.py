"""Datasets that the `datasets` package saved on disk."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.parquet import cell_bytes, media_value
from fusemix_core.data.rows import SPLIT_NAMES, Row
from fusemix_core.errors import DataError, MissingDependencyError

_BATCH = 64


class SavedReader:
    """A folder from `Dataset.save_to_disk` or `DatasetDict.save_to_disk` (whose keys are splits).

    Class labels are read as their names.
    """

    def matches(self, path: Path) -> bool:
        return path.is_dir() and (
            (path / "dataset_dict.json").is_file()
            or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file())
        )

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
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
        for part in parts:
            yield from _rows(part, None if part.name in unknown else part.name)


def _rows(path: Path, split: str | None) -> Iterator[Row | Rejected]:
    dataset = _open(path)
    cells = SavedCells(str(path.absolute()))
    labels = {n: f for n, f in dataset.features.items() if type(f).__name__ == "ClassLabel"}
    for start in range(0, len(dataset), _BATCH):
        columns = dataset[start : start + _BATCH]
        for offset in range(len(next(iter(columns.values()), []))):
            index = start + offset
            values = {
                name: media_value(values[offset], cells, name, index)
                for name, values in columns.items()
            }
            for name, feature in labels.items():
                if isinstance(values[name], int) and values[name] >= 0:
                    values[name] = feature.int2str(values[name])
            yield Row(str(path), index + 1, values, split=split)


def _open(path: str | Path) -> Any:
    """The `datasets.Dataset` at `path`, its media left encoded."""
    try:
        import datasets
    except ImportError as error:
        what = "reading a saved `datasets` folder"
        raise MissingDependencyError.of(what, "datasets", "fusemix[datasets]") from error
    try:
        dataset = datasets.load_from_disk(str(path)).with_format(None)
        for name, feature in dataset.features.items():
            if hasattr(feature, "decode") and feature.decode:
                feature = copy.copy(feature)
                feature.decode = False
                dataset = dataset.cast_column(name, feature)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"can't be read as a saved dataset: {error}", path=path) from error
    return dataset


class SavedCells:
    """Random access to the bytes in a saved dataset."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamp = str(Path(path, "state.json"))
        self._dataset: Any = None

    def read(self, column: str, index: int) -> bytes:
        if self._dataset is None:  # opened twice by two threads does no harm
            self._dataset = _open(self.path)
        return cell_bytes(self._dataset.select_columns([column])[index][column])

    def __str__(self) -> str:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "stamp": self.stamp, "_dataset": None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedCells) and other.path == self.path

    def __hash__(self) -> int:
        return hash((SavedCells, self.path))
