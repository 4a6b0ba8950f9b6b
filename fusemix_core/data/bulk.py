"""Takes blocks of rows into a gatherer, a column at a time where rows are plain.

A row is plain if each of its modalities has one text, or one file, and what it says of split, group
and trust can be read. All others, and those that are of no use, go through `Gatherer.add` one by
one, in their place: what is gathered is the same as if all rows had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.arrow_texts import plain_texts
from fusemix_core.data.dataset import SPLITS
from fusemix_core.data.gathered import GatheredTexts
from fusemix_core.data.gathering import Columns, Gatherer
from fusemix_core.data.media import Medium
from fusemix_core.data.references import Fault, FileReference
from fusemix_core.data.rows import SPLIT_NAMES, Block, Row
from fusemix_core.data.templates import Template

if TYPE_CHECKING:
    import pyarrow as pa

_SHORT = 32
"""Runs of plain rows that are shorter than this, on average, are not worth their own way."""
_LOOKED_AT = 128
_LISTS = "[({"


@dataclass
class _Cells:
    """The cells of one modality's column: the different ones as texts or files, whether each is
    plain, and which of them each row has (-1: none)."""

    values: Any
    plain: np.ndarray
    which: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """bool: the rows whose cell is plain."""
        return np.append(self.plain, False)[self.which]


@dataclass
class _Said:
    """What the rows say besides: split, trust, group by value, facts by column; and which rows can
    be read."""

    split: np.ndarray
    trust: np.ndarray
    group: tuple[list[Any], np.ndarray] | None
    facts: Mapping[str, tuple[list[Any], np.ndarray]]
    plain: np.ndarray


def add_block(gatherer: Gatherer, block: Block, columns: Columns) -> None:
    """Take the rows of a block as `Gatherer.add` would, one after the other."""
    found = _plain_cells(gatherer, block, columns)
    if found is not None:
        said = _said(gatherer, block, columns)
        plain = np.logical_and.reduce([said.plain, *(one.rows for one in found.values())])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], plain, [False]])))
        if plain.sum() >= _SHORT * max(len(edges) // 2, 1):
            at = 0
            for start, end in edges.reshape(-1, 2).tolist():
                for i in range(at, start):
                    gatherer.add(block.row(i), columns)
                _add_run(gatherer, block, found, said, slice(start, end))
                at = end
            for i in range(at, len(block)):
                gatherer.add(block.row(i), columns)
            return
    for row in block.rows():
        gatherer.add(row, columns)


def _plain_cells(gatherer: Gatherer, block: Block, columns: Columns) -> dict[str, _Cells] | None:
    """The cells of each modality that has a column; None where rows must be taken one by one."""
    found = {}
    for modality, how in gatherer.media.items():
        names = columns.modalities.get(modality, ())
        if not names:
            continue
        one = _joined_cells if how.joined else _column_cells
        cells = one(gatherer, block, names, modality, how)
        if cells is None:
            return None
        found[modality] = cells
    return found if len(found) >= gatherer.least else None


def _joined_cells(
    gatherer: Gatherer, block: Block, names: Sequence[str], modality: str, how: Medium
) -> _Cells | None:
    """The items that several columns make together."""
    if not isinstance(block.values, Mapping) or not how.inline:
        return None
    texts = how.join({name: _without_missing(gatherer, block.values[name]) for name in names})
    if texts is None:
        return None
    plain = texts.is_valid().to_numpy(zero_copy_only=False)
    return _Cells(texts.fill_null(""), plain, np.arange(len(texts)))


def _without_missing(gatherer: Gatherer, cells: pa.Array) -> pa.Array:
    """The cells of a column, null if they contain a word for nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not gatherer.rules.missing or cells.type != pa.string():
        return cells
    words = pc.utf8_lower(pc.utf8_trim_whitespace(cells))
    missing = pc.is_in(words, pa.array(sorted(gatherer.rules.missing), pa.string()))
    return pc.if_else(missing, pa.scalar(None, pa.string()), cells)


def _column_cells(
    gatherer: Gatherer, block: Block, names: Sequence[str], modality: str, how: Medium
) -> _Cells | None:
    """The items of one column; None if they aren't texts or the names of files."""
    if len(names) > 1 or isinstance(names[0], Template):
        return None
    if how.inline and how.name != "text":
        return None
    texts = block.texts(names[0])
    return None if texts is None else _cells(gatherer, block, texts, modality, how)


def _cells(gatherer: Gatherer, block: Block, texts: pa.Array, modality: str, how: Medium) -> _Cells:
    import pyarrow as pa

    if how.inline and _mostly_differ(texts):
        values, plain = plain_texts(texts)
        if gatherer.rules.missing:
            plain &= [not gatherer.rules.is_missing(one) for one in texts.to_pylist()]
        return _Cells(values, plain, np.arange(len(texts)))
    encoded = texts.dictionary_encode()
    which = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    distinct = encoded.dictionary.cast(pa.string())
    if how.inline:
        values, plain = plain_texts(distinct)
        if gatherer.rules.missing:
            plain &= [not gatherer.rules.is_missing(one) for one in distinct.to_pylist()]
        return _Cells(values, plain, which)
    row = Row(block.path, block.first, {})
    files = [_file(gatherer, row, one, modality, how) for one in distinct.to_pylist()]
    return _Cells(files, np.array([one is not None for one in files], bool), which)


def _mostly_differ(texts: pa.Array) -> bool:
    """Whether hardly any of the first texts is twice among them."""
    some = texts.slice(0, _LOOKED_AT)
    return len(some.unique()) > 0.9 * len(some)


def _file(
    gatherer: Gatherer, row: Row, cell: str, modality: str, how: Medium
) -> FileReference | None:
    """The file that a cell names, if it names one and nothing else."""
    if not cell or cell[0] in _LISTS or cell.startswith("array(["):
        return None
    entries = gatherer.entries(row, cell, modality, how)
    one = entries[0] if len(entries) == 1 else None
    return one if isinstance(one, FileReference) else None


def _said(gatherer: Gatherer, block: Block, columns: Columns) -> _Said:
    count = len(block)
    plain = np.ones(count, bool)
    split = np.full(count, -1 if columns.split is None else SPLITS.index(columns.split), np.int8)
    if columns.split is None and columns.split_column:
        values, which = block.distinct(columns.split_column)
        numbers = [_split(gatherer, one) for one in values]
        plain &= np.array([n is not None for n in numbers])[which]
        split = np.array([-1 if n is None else n for n in numbers], np.int8)[which]
    trust = np.ones(count, np.float32)
    if columns.trust:
        values, which = block.distinct(columns.trust)
        read = [gatherer.trust_of(Row("", 0, {columns.trust: one}), columns) for one in values]
        plain &= np.array([not isinstance(one, Fault) for one in read])[which]
        trust = np.array([0 if isinstance(one, Fault) else one for one in read], np.float32)[which]
    group = block.distinct(columns.group) if columns.group else None
    wanted = {place.column for place in gatherer.facts.wanted.values()}
    facts = {name: block.distinct(name) for name in sorted(wanted) if block.has(name)}
    return _Said(split, trust, group, facts, plain)


def _split(gatherer: Gatherer, value: Any) -> int | None:
    """The number of the split that a cell names, None if it names none."""
    name = None if isinstance(value, Fault) else SPLIT_NAMES.get(str(value).strip().lower())
    return None if name is None or gatherer.rules.is_missing(value) else SPLITS.index(name)


def _add_run(
    gatherer: Gatherer, block: Block, cells: Mapping[str, _Cells], said: _Said, run: slice
) -> None:
    """Take the rows of a run, all of which are plain."""
    count = run.stop - run.start
    number = gatherer.files.setdefault(block.path, len(gatherer.files))
    rows = np.arange(block.first + run.start, block.first + run.stop)
    links = np.full((count, len(gatherer.takes)), -1, np.int64)
    for k, modality in enumerate(gatherer.takes):
        if modality in cells:
            links[:, k] = _numbers(gatherer, modality, cells[modality], run, number, rows)
    group = np.full(count, -1, np.int64)
    if said.group is not None:
        values, which = said.group
        kept, which = _in_order(which[run])
        known = [gatherer.group_number(values[i]) for i in kept.tolist()]
        group = np.array(known, np.int64)[which]
    facts = {name: _some(values, which[run]) for name, (values, which) in said.facts.items()}
    find = partial(gatherer.file_of, Row(block.path, block.first, {}))
    first = gatherer.facts.add_all(facts, count, find)
    gatherer.add_links(
        links, said.split[run], group, said.trust[run], first + np.arange(count), number, rows
    )


def _numbers(
    gatherer: Gatherer, modality: str, cells: _Cells, run: slice, file: int, rows: np.ndarray
) -> np.ndarray:
    """int64: the number of each row's reference among those gathered of a modality."""
    gathered = gatherer.gathered[modality]
    kept, which = _in_order(cells.which[run])
    first = np.arange(len(which))
    if len(kept) < len(which):
        first = np.full(len(kept), len(which))
        np.minimum.at(first, which, np.arange(len(which)))
    if isinstance(gathered, GatheredTexts) and not isinstance(cells.values, list):
        whole = len(kept) == len(cells.values) and (kept == np.arange(len(kept))).all()
        texts = cells.values if whole else cells.values.take(kept)
        return gathered.add_all(texts, file, rows[first]) + which
    numbers = [
        gathered.add(cells.values[i], file, row)
        for i, row in zip(kept.tolist(), rows[first].tolist(), strict=True)
    ]
    return np.array(numbers, np.int64)[which]


def _some(values: list[Any], which: np.ndarray) -> tuple[list[Any], np.ndarray]:
    kept, which = _in_order(which)
    return [values[i] for i in kept.tolist()], which


def _in_order(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the different numbers in the order in which they come; int64 which of these each is)."""
    if len(which) and (np.diff(which) == 1).all():  # each text is another
        return which, np.arange(len(which))
    if len(which) and which[0] == 0:
        highest = np.maximum.accumulate(which)
        new = np.flatnonzero(np.diff(highest, prepend=-1))
        if (highest[new] == np.arange(len(new))).all():  # 0, 1, 2, … where they come first
            return np.arange(len(new)), which
    distinct, first, inverse = np.unique(which, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[inverse]
