"""What a collection is built from: the items of a dataset, and all of its columns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.columns import find_columns
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.data.items import Items
from fusemix_core.data.media import medium
from fusemix_core.data.reading import NO_TRUST
from fusemix_core.data.references import CellReference, FileReference, Reference, SliceReference
from fusemix_core.data.sources import expand, open_source
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.search.items import Record
from fusemix_core.search.where import NUMBER, TEXT

MOST_COLUMNS = 100
_LISTED = 20
"""Files of a source whose columns are looked up; the others have the same."""
_MARK = "column "
"""Before the names of columns, which may be those of modalities."""


@dataclass
class Read:
    """A dataset as a collection takes it: items by modality, and the columns of their rows."""

    dataset: PairedDataset
    columns: dict[str, Fact]
    roots: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, str]:
        """Column → `number` or `text`."""
        return {
            name: NUMBER if fact.kind == "number" else TEXT for name, fact in self.columns.items()
        }

    def records(self, modality: str, which: np.ndarray) -> Iterator[Record]:
        """The records of items `which`, int64, with the values of the first row of each."""
        items = self.dataset.items[modality]
        links = self.dataset.links[:, self.dataset.modalities.index(modality)]
        first = np.full(len(items), -1, np.int64)
        linked = np.flatnonzero(links >= 0)[::-1]
        first[links[linked]] = linked
        for i in which.tolist():
            values = tuple(_value(fact, first[i]) for fact in self.columns.values())
            key = items.keys[i].astype("<u8").tobytes()
            item, place, start, size = _place(items, items.references[i])
            yield Record(key, modality, item, place, start, size, values)


def read_collection(config: DataConfig, takes: Mapping[str, str], reporter: Reporter) -> Read:
    """Read the items of some modalities, those that the data have, with all columns.

    Args:
        config: The data. Splits, and columns of other modalities, make no difference.
        takes: Modality → medium.

    Raises:
        DataError: The data can't be read, or too much of them is bad.
    """
    config = replace(
        config,
        columns={m: c for m, c in config.columns.items() if m in takes},
        trust_column=NO_TRUST,
        split_column=None,
        group_by=None,
        unpaired=False,
        validation_fraction=0.0,
        test_fraction=0.0,
    ).located()
    names, paths = _columns(config, takes)
    if len(names) > MOST_COLUMNS:
        reporter.note(
            f"The data have {len(names):,} columns; the index keeps the first {MOST_COLUMNS}."
        )
    facts = {_MARK + name: name for name in names[:MOST_COLUMNS]}
    config = replace(config, facts={**facts, **{_MARK + n: c for n, c in config.facts.items()}})
    dataset = read_usable(config, takes, tell=reporter.note, least=1, optional=tuple(takes))
    columns = {
        name.removeprefix(_MARK): fact
        for name, fact in dataset.facts.items()
        if name in config.facts
    }
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
    roots = tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders))
    return Read(dataset, columns, roots)


def _columns(config: DataConfig, takes: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(the columns of the data but those of media files; the paths of the sources)."""
    names: dict[str, None] = {}
    paths = [str(path) for source in config.files for path in expand(source)]
    for path in paths[:_LISTED]:
        _, filled, _ = open_source(Path(path), config)
        found, _ = find_columns(takes, filled, config.columns, path)
        media = {c for m, cs in found.items() if not medium(takes[m]).inline for c in cs}
        names |= dict.fromkeys(name for name in filled if name not in media and name)
    return list(names), paths


def _place(
    items: Items, reference: str | Reference
) -> tuple[str, str | None, int | None, int | None]:
    """(what to show; file, start and size of the bytes): see `Record`."""
    if isinstance(reference, str):
        return reference, "", None, None
    if isinstance(reference, FileReference):
        return reference.path, os.path.abspath(reference.path), None, None
    if isinstance(reference, SliceReference):
        return str(reference), os.path.abspath(reference.path), reference.offset, reference.size
    if isinstance(reference, CellReference):
        return str(reference), os.path.abspath(str(reference.cells)), reference.index, None
    return str(reference), None, None, None


def _value(fact: Fact, row: int) -> Any:
    """What a column says of a row, as the table has it."""
    value = fact.values[row]
    if row < 0:
        return None
    if fact.kind in ("class", "text"):
        return fact.names[value] if value >= 0 else None
    if fact.kind == "box":
        return None if np.isnan(value).any() else " ".join(f"{float(v):g}" for v in value)
    if np.isnan(value):
        return None
    if fact.kind == "time":
        said = datetime.fromtimestamp(float(value), UTC).replace(tzinfo=None).isoformat(" ")
        return said.removesuffix(" 00:00:00")
    return float(value)
