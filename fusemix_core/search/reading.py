"""Reads the items of a dataset and all of its columns, to build a collection from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.columns import find_columns
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.data.items import Items
from fusemix_core.data.media import medium
from fusemix_core.data.reading import NO_TRUST
from fusemix_core.data.references import CellReference, FileReference, Reference, SliceReference
from fusemix_core.data.rows import Row
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
_HEAD = 20
"""Rows that show which columns contain media."""
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)?(?<=\d)(\.\d*)?([eE][+-]?\d{1,3})?|[+-]?0?\.\d+")
_LARGEST = 2**53
"""Whole numbers up to this are exact."""


@dataclass
class Cells:
    """A column: `number` if all of its cells are numbers, else `text`.

    which: int64 `[m]`, for each row an index into `values`, -1 for an empty cell.
    """

    kind: str
    which: np.ndarray
    values: Sequence[str | float]

    @classmethod
    def of(cls, fact: Fact) -> Cells:
        """The column of a fact that was read as text."""
        texts = fact.names
        if texts and all(map(_is_number, texts)):
            return cls(NUMBER, fact.values, [float(text) for text in texts])
        return cls(TEXT, fact.values, texts)

    def value(self, row: int) -> str | float | None:
        """The value of a row; `row` is -1 for an item without one."""
        which = self.which[row] if row >= 0 else -1
        return self.values[which] if which >= 0 else None


def _is_number(text: str) -> bool:
    """Whether a text says the same as a number: `007` and long digits don't."""
    return bool(_NUMBER.fullmatch(text)) and abs(float(text)) <= _LARGEST


@dataclass
class Read:
    """A dataset as a collection takes it: items by modality, and the columns of their rows."""

    dataset: PairedDataset
    columns: dict[str, Cells]
    roots: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, str]:
        """Column → `number` or `text`."""
        return {name: one.kind for name, one in self.columns.items()}

    def records(self, modality: str, which: np.ndarray) -> Iterator[Record]:
        """The records of items `which`, int64, with the values of the first row of each."""
        items = self.dataset.items[modality]
        links = self.dataset.links[:, self.dataset.modalities.index(modality)]
        first = np.full(len(items), -1, np.int64)
        linked = np.flatnonzero(links >= 0)[::-1]
        first[links[linked]] = linked
        for i in which.tolist():
            values = tuple(one.value(first[i]) for one in self.columns.values())
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
    facts = {_MARK + name: f"{name}:text" for name in names[:MOST_COLUMNS]}
    config = replace(config, facts=facts)
    dataset = read_usable(config, takes, tell=reporter.note, least=1, optional=tuple(takes))
    columns = {
        name.removeprefix(_MARK): Cells.of(fact)
        for name, fact in dataset.facts.items()
        if name in facts
    }
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
    roots = tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders))
    return Read(dataset, columns, roots)


def _columns(config: DataConfig, takes: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(the columns of the data but those of media files; the paths of the sources)."""
    names: dict[str, None] = {}
    paths = [str(path) for source in config.files for path in expand(source)]
    for path in paths[:_LISTED]:
        rows, filled, _ = open_source(Path(path), config)
        found, _ = find_columns(takes, filled, config.columns, path)
        media = {c for m, cs in found.items() if not medium(takes[m]).inline for c in cs}
        head = [row.values for row in islice(rows, _HEAD) if isinstance(row, Row)]
        media |= {c for row in head for c, v in row.items() if isinstance(v, bytes | Reference)}
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
