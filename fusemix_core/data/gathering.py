"""Turns rows into references and links, and keeps what can't be used."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from fusemix_core.data.cells import FactCells, FactColumn
from fusemix_core.data.dataset import NO_ENTRY, SPLITS, Rejected
from fusemix_core.data.gathered import Gathered, GatheredTexts
from fusemix_core.data.items import Origin
from fusemix_core.data.media import Medium, medium
from fusemix_core.data.media.in_python import unwrapped
from fusemix_core.data.near import end_in, within
from fusemix_core.data.numbers import Growing
from fusemix_core.data.references import Fault, FileReference, Reference, Sidecar, hold
from fusemix_core.data.rows import MAX_PATH, SPLIT_NAMES, Row
from fusemix_core.data.rules import Rules, is_json, list_in
from fusemix_core.data.templates import Template
from fusemix_core.data.texts import inline_of
from fusemix_core.errors import DataError, short

MOST_LINKS = 10_000
"""A row may link at most so many combinations of the values in its cells."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a source hold what. `split`: fixed for all rows, or None."""

    modalities: Mapping[str, Sequence[str]]
    group: str | None = None
    split_column: str | None = None
    split: str | None = None
    trust: str | None = None


class Gatherer:
    """Takes rows one by one; `links`, `split`, `group`, `trust` and `fact_row` (the number of the
    link's row in `facts`) grow by one entry per link.

    A row links `least` modalities or more. With `unpaired` one is enough if the row is not said to
    be held out.
    """

    def __init__(
        self,
        takes: Mapping[str, str],
        least: int,
        allow_outside: bool,
        unpaired: bool = False,
        facts: Mapping[str, FactColumn] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.takes = dict(takes)
        self.media = {modality: medium(name) for modality, name in takes.items()}
        self.least, self.allow_outside, self.unpaired = least, allow_outside, unpaired
        self.gathered: dict[str, Gathered[Any]] = {
            modality: GatheredTexts() if how.inline else Gathered()
            for modality, how in self.media.items()
        }
        self.links, self.group = Growing("q"), Growing("q")
        self.split = Growing("b")  # index into SPLITS; -1: not told
        self.trust, self.fact_row = Growing("f"), Growing("q")
        self.facts = FactCells(facts or {}, self.rules.is_missing)
        self.file, self.row = Growing("i"), Growing("q")
        self.files: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        self.rejected: list[Rejected] = []
        self.rows_read = 0
        self.lists_in_python = 0
        self._counted: set[tuple[str, int]] = set()
        self._bases: dict[tuple[str, str | None], str] = {}
        self._links: dict[tuple[str, str], bool] = {}
        self.unknown_splits: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.split)

    def reject(self, one: Rejected) -> None:
        """Take a row, or a part of one that is still to come, that the reader can't read."""
        self.rows_read += (one.path, one.row) not in self._counted
        self._counted.add((one.path, one.row))
        self.rejected.append(one)

    def add(self, row: Row, columns: Columns) -> None:
        """Take what a row links; what can't be used goes to `rejected`."""
        self.rows_read += (row.path, row.number) not in self._counted
        values, faults = self._values(row, columns)
        split, trust = self._split(row, columns), self.trust_of(row, columns)
        group = self._group(row, columns)
        if isinstance(split, Fault) or isinstance(trust, Fault) or isinstance(group, Fault):
            wrong = [one for one in (split, trust, group) if isinstance(one, Fault)]
            faults += [_rejected(row, "", one.reason) for one in wrong]
        elif sum(map(bool, values.values())) < (1 if self.unpaired and split <= 0 else self.least):
            faults = faults or [self._too_few(row, values)]
        elif math.prod(max(len(v), 1) for v in values.values()) > MOST_LINKS:
            reason = f"the row links more than {MOST_LINKS:,} combinations of its values"
            faults.append(_rejected(row, "", reason))
        else:
            self._link(row, values, split, trust, group)
        self.rejected += faults

    def _values(
        self, row: Row, columns: Columns
    ) -> tuple[dict[str, list[str | Reference]], list[Rejected]]:
        """(what the row holds of each modality, what of it can't be used)."""
        values: dict[str, list[str | Reference]] = {}
        faults = []
        for modality, how in self.media.items():
            found: dict[str | Reference, None] = {}
            for one in self._items(row, columns.modalities.get(modality, ()), modality, how):
                if isinstance(one, Fault):
                    faults.append(_rejected(row, modality, one.reason))
                else:
                    found[one] = None
            values[modality] = list(found)
        return values, faults

    def _link(
        self, row: Row, values: dict[str, list], split: int, trust: float, group: int
    ) -> None:
        file = self.files.setdefault(row.path, len(self.files))
        ids = [
            [self.gathered[m].add(one, file, row.number) for one in v] or [-1]
            for m, v in values.items()
        ]
        fact_row = self.facts.add(row.values, partial(self.file_of, row))
        for link in product(*ids):
            self.links.extend(link)
            self.split.append(split)
            self.group.append(group)
            self.trust.append(trust)
            self.fact_row.append(fact_row)
            self.file.append(file)
            self.row.append(row.number)

    def add_links(
        self,
        links: np.ndarray,
        split: np.ndarray,
        group: np.ndarray,
        trust: np.ndarray,
        fact_row: np.ndarray,
        file: int,
        row: np.ndarray,
    ) -> None:
        """Take `m` rows of a file that have one link each, int64 `[m, K]`."""
        self.rows_read += len(links)
        for held, more in ((self.links, links), (self.split, split), (self.group, group),
                           (self.trust, trust), (self.fact_row, fact_row), (self.row, row),
                           (self.file, np.full(len(links), file, np.int32))):  # fmt: skip
            held.add(more)

    def _too_few(self, row: Row, values: dict[str, list]) -> Rejected:
        empty = [m for m, v in values.items() if not v]
        one = _rejected(row, "", f"{NO_ENTRY} {' and no '.join(empty)}")
        return replace(one, bad=False, incomplete=True) if self.rules.missing_ok else one

    def _split(self, row: Row, columns: Columns) -> int | Fault:
        if columns.split is not None:
            return SPLITS.index(columns.split)
        value = row.values.get(columns.split_column) if columns.split_column else row.split
        if isinstance(value, Fault):
            return value
        if self.rules.is_missing(value):
            return (
                Fault(f"the column '{columns.split_column}' is empty")
                if columns.split_column
                else -1
            )
        name = SPLIT_NAMES.get(str(value).strip().lower())
        if name is None:
            told = short(value)
            self.unknown_splits[told] = self.unknown_splits.get(told, 0) + 1
            return Fault(f"'{told}' is not a split")
        return SPLITS.index(name)

    def _group(self, row: Row, columns: Columns) -> int | Fault:
        """The number of the row's group, -1 without one."""
        value = row.values.get(columns.group) if columns.group else None
        return value if isinstance(value, Fault) else self.group_number(value)

    def group_number(self, value: Any) -> int:
        """The number of the group that a cell names, -1 if it is empty."""
        if self.rules.is_missing(value):
            return -1
        return self.groups.setdefault(str(value), len(self.groups))

    def trust_of(self, row: Row, columns: Columns) -> float | Fault:
        """How far the row is to be trusted, 1 if nothing is said."""
        value: Any = row.values.get(columns.trust) if columns.trust else None
        if isinstance(value, Fault):
            return value
        if self.rules.is_missing(value.strip() if isinstance(value, str) else value):
            return 1.0
        try:
            trust = float(value)
        except (TypeError, ValueError, OverflowError):
            trust = math.nan
        return trust if 0 <= trust <= 1 else Fault(f"trust is '{value}', not a number from 0 to 1")

    # -- values ----------------------------------------------------------------------------------

    def _items(
        self, row: Row, columns: Sequence[str], modality: str, how: Medium
    ) -> Iterator[str | Reference | Fault]:
        """What the columns of one modality hold in a row."""
        if not how.joined:
            for column in columns:
                if isinstance(column, Template):
                    yield from self._rendered(row, column, modality, how)
                else:
                    yield from self.entries(row, row.values.get(column), modality, how)
            return
        cells = {column: row.values.get(column) for column in columns}
        cells = {c: None if self.rules.is_missing(v) else v for c, v in cells.items()}
        if faults := [value for value in cells.values() if isinstance(value, Fault)]:
            yield from faults
        elif any(value is not None for value in cells.values()):
            entry = inline_of(cells, how)
            if entry != "":
                yield entry

    def _rendered(
        self, row: Row, template: Template, modality: str, how: Medium
    ) -> Sequence[str | Reference | Fault]:
        """The one item that several cells make. A text leaves out what is missing; a path with a
        part missing is missing."""
        values = {}
        for column in template.columns:
            entries = self.entries(row, row.values.get(column), modality, medium("text"))
            if faults := [one for one in entries if isinstance(one, Fault)]:
                return faults
            values[column] = " ".join(map(str, entries))
        if how.inline:
            entry = inline_of(template.render(values), how)
            return [entry] if entry != "" else []
        whole = template.render(values) if all(values.values()) else None
        return self.entries(row, whole, modality, how)

    def entries(
        self, row: Row, value: Any, modality: str, how: Medium
    ) -> list[str | Reference | Fault]:
        """What a cell contains; nothing if it is empty."""
        if isinstance(value, str):
            cell, value = value, list_in(value)
            if isinstance(value, list):
                self.lists_in_python += not is_json(cell)
            elif how.inline and not self.rules.is_missing(value):
                text = inline_of(value, how)
                return [text] if text != "" else []
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(one, Sidecar) for one in parts):
            parts = [entry for one in parts for entry in self._captions(row, one)]
        out = []
        for one in parts:
            if self.rules.is_missing(one):
                continue
            if how.inline:
                entry = inline_of(one, how)
            else:
                entry = self._medium(row, self.rules.file_name(modality, one), how)
            if entry != "":
                out.append(entry)
        return out

    def _captions(self, row: Row, value: Any) -> list[Any]:
        """The entries of a sidecar text."""
        if not isinstance(value, Sidecar):
            return [value]
        place = self.file_of(row, value.path)
        if not isinstance(place, FileReference):
            return [place]
        captions = Sidecar(place.path, value.encoding).captions()
        return captions if isinstance(captions, list) else [captions]

    def _medium(self, row: Row, value: Any, how: Medium) -> str | Reference | Fault:
        value = unwrapped(value)
        if isinstance(value, Fault | Reference):
            if how.opened and not isinstance(value, FileReference | Fault):
                return Fault(f"{value} lies in an archive, but its encoder opens files: extract it")
            return value
        if isinstance(value, str | Path):
            return self.file_of(row, str(value).strip())
        if isinstance(value, bool | int | float | dict | list):
            return Fault(f"contains a {type(value).__name__}, not the path of a file")
        try:
            return hold(value, how, f"{row.path} {row.number}")
        except DataError as error:
            return Fault(error.message)

    def file_of(self, row: Row, name: str) -> FileReference | Fault | str:
        """The file that a cell names; one outside the source's folder is refused."""
        if not name:
            return ""
        if name.startswith("file://"):
            name = unquote(name.removeprefix("file://"))
        if "://" in name:
            return Fault(f"'{short(name)}' is a URL; download it and give its path")
        if "\0" in name:
            return Fault("the path contains a NUL byte")
        base = self._base(row)
        path = os.path.normpath(os.path.join(base, name))
        if len(path) > MAX_PATH:
            return Fault(f"'{short(name)}' is too long for a path")
        if not self.allow_outside and (why := self._leaves(base, path)):
            if (near := end_in(base, name)) is not None:
                return Fault(f"'{short(name)}' {why} the folder of the data; did you mean {near}?")
            hint = "the folder of the data; --allow-outside lets it in"
            return Fault(f"'{short(name)}' {why} {hint}")
        try:
            path.encode()
        except UnicodeEncodeError:
            return Fault("the path is not Unicode")
        return FileReference(path)

    def _leaves(self, base: str, path: str) -> str:
        """How a path leaves the folder `base`, by its name or by a link; "" if it doesn't."""
        if not within(base, path):
            return "is outside"
        folder = base if path == base else os.path.dirname(path)
        leads = self._links.get((base, folder))
        if leads is None:
            leads = not within(os.path.realpath(base), os.path.realpath(folder))
            self._links[base, folder] = leads
        if not leads and os.path.islink(path):
            leads = not within(os.path.realpath(base), os.path.realpath(path))
        return "is a link that leads out of" if leads else ""

    def _base(self, row: Row) -> str:
        """The absolute folder to which the row's paths are relative."""
        base = self._bases.get((row.path, row.base))
        if base is None:
            folder = os.path.dirname(row.path) if row.base is None else row.base
            base = self._bases[row.path, row.base] = _absolute(folder)
        return base

    @property
    def bases(self) -> set[str]:
        """The absolute folders to which paths are relative."""
        return set(self._bases.values())

    # -- results ---------------------------------------------------------------------------------

    def link_table(self) -> np.ndarray:
        """int64 `[m, K]` into the gathered references; the gatherer's own."""
        return self.links.values().reshape(-1, len(self.takes))

    def origin(self, file: Growing | None = None, row: Growing | None = None) -> Origin:
        """Where the links (or what `file` and `row` tell) were read."""
        files = (self.file if file is None else file).values()
        rows = (self.row if row is None else row).values()
        return Origin(tuple(self.files), _narrow(files), _narrow(rows))


def _narrow(values: np.ndarray) -> np.ndarray:
    """The numbers in as few bytes as hold them."""
    highest = int(values.max(initial=0))
    for smaller in (np.int8, np.int16, np.int32):
        if highest <= np.iinfo(smaller).max:
            return values.astype(smaller)
    return values.copy()


def _rejected(row: Row, modality: str, reason: str) -> Rejected:
    return Rejected(
        row.path, row.number, modality, f"{short(row.name)}: {reason}" if row.name else reason
    )


def _absolute(folder: str) -> str:
    """The absolute path of a folder; `..` leads up from where a link before it leads."""
    path = os.path.abspath(folder)
    same = os.pardir not in Path(folder).parts or os.path.realpath(folder) == os.path.realpath(path)
    return path if same else os.path.realpath(folder)
