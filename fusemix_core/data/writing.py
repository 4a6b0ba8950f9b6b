"""Writes rows of a dataset as a manifest that can be read again."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.cells import FactColumn
from fusemix_core.data.columns import find_columns
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.references import FileReference, Reference
from fusemix_core.data.rows import Row, is_missing, one_by_one
from fusemix_core.data.sources import expand, open_source
from fusemix_core.data.templates import sources_of
from fusemix_core.data.texts import text_of
from fusemix_core.disk import write_atomically
from fusemix_core.errors import ConfigError, DataError

SUFFIXES = (".csv", ".tsv", ".jsonl")

Cells = Mapping[str, Any]


def check_manifest_path(path: Path) -> None:
    """Raise `ConfigError` unless a manifest can be written there: of a known form, and new."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is not a manifest.", f"Its name ends in {', '.join(SUFFIXES)}.")
    if path.exists():
        raise ConfigError(f"{path} is there already.", "Name another, or delete it.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"The folder {path.parent} does not exist.", "Make it first.")


def write_manifest(
    path: Path, dataset: PairedDataset, rows: np.ndarray, config: DataConfig
) -> bool:
    """Write rows of a dataset that `config` describes, int64 and in this order, to `path`.

    One column per modality, by its name, with texts and with paths relative to the manifest; the
    rows' other cells as they were read, except for lists and bytes that aren't facts; and, if the
    data say splits, these (`split_column`, or `split`).

    Returns:
        Whether a path leaves the manifest's folder, so that reading it takes `allow_outside`.

    Raises:
        DataError: an item isn't a file of its own, or a column of facts has the name of a modality
            that is read from another.
    """
    folder = os.path.abspath(path.parent)
    others = _other_cells(dataset, rows, config)
    split_of = {int(row): name for name, part in dataset.splits.items() for row in part}
    told = any(len(part) for name, part in dataset.splits.items() if name != "train")
    lines, outside = [], False
    for row in rows.tolist():
        cells = {}
        for modality, item in zip(dataset.modalities, dataset.links[row].tolist(), strict=True):
            value = "" if item < 0 else _named(dataset.items[modality].references[item], folder)
            inline = dataset.items[modality].medium.inline
            outside |= not inline and value.startswith(os.pardir)
            cells[modality] = value
        cells = {**others[dataset.origin[row]], **cells}
        if told:
            cells[config.split_column or "split"] = split_of[row]
        lines.append(cells)
    write_atomically(path, [_written(lines, path.suffix.lower())])
    return outside


def _named(reference: Any, folder: str) -> str:
    """The text, or the path from the folder."""
    if isinstance(reference, str):
        return reference
    if not isinstance(reference, FileReference):
        raise DataError(
            f"{reference} is not a file of its own, so that a manifest can't name it.",
            "Choose while aligning instead: fusemix align --select … --pairs …",
        )
    return os.path.relpath(reference.path, folder)


def _other_cells(
    dataset: PairedDataset, rows: np.ndarray, config: DataConfig
) -> dict[tuple[str, int], Cells]:
    """(file, row) → what the row contains beside the dataset's modalities."""
    wanted = {dataset.origin[row] for row in rows.tolist()}
    takes = {m: items.takes for m, items in dataset.items.items()}
    kept = {FactColumn.parse(text).column for text in config.facts.values()}
    if config.trust_column is not None:
        kept.add(config.trust_column)
    found: dict[tuple[str, int], Cells] = {place: {} for place in wanted}
    sources = (config.source, (config.validation, config.test))
    for source in filter(None, [s for part in sources for s in part]):
        for path in expand(source):
            read, filled, _ = open_source(path, config)
            columns = find_columns(takes, filled, config.columns, path)[0]
            _check_overwritten(kept & filled.keys(), columns, path)
            known = {name for names in columns.values() for name in sources_of(names)} - kept
            for row in one_by_one(read):
                if isinstance(row, Row) and (row.path, row.number) in wanted:
                    cells = {
                        n: _cell(v, n in kept) for n, v in row.values.items() if n not in known
                    }
                    found[row.path, row.number] = {n: v for n, v in cells.items() if v is not None}
    return found


def _check_overwritten(
    kept: Iterable[str], columns: Mapping[str, Sequence[str]], path: Path
) -> None:
    for name in kept:
        if name in columns and name not in columns[name]:
            raise DataError(
                f"the manifest's column '{name}' would hold both a fact and the modality {name}",
                "Rename the column of the fact in the data.",
                path=path,
            )


def _cell(value: Any, is_fact: bool) -> Any:
    """What a cell is in a manifest; None if nothing is written of it."""
    if is_fact and isinstance(value, bytes | Reference):
        value = text_of(value)
    if isinstance(value, date | Decimal):
        value = str(value)
    if is_fact and isinstance(value, list):
        return value
    return value if isinstance(value, str | int | float) and not is_missing(value) else None


def _written(lines: Iterable[Cells], suffix: str) -> bytes:
    lines = list(lines)
    if suffix == ".jsonl":
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    else:
        buffer = io.StringIO()
        names = list(dict.fromkeys(name for line in lines for name in line))
        writer = csv.DictWriter(
            buffer,
            names,
            restval="",
            delimiter="\t" if suffix == ".tsv" else ",",
            lineterminator="\n",
        )
        writer.writeheader()
        for line in lines:
            writer.writerow(
                {n: json.dumps(v) if isinstance(v, list) else v for n, v in line.items()}
            )
        text = buffer.getvalue()
    return text.encode("utf-8", "surrogateescape")
