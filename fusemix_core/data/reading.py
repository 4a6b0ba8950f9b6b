"""Reads paired datasets: from files as a `DataConfig` says, or from lists in Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data import splits
from fusemix_core.data.columns import find_columns, missing_column, say
from fusemix_core.data.dataset import SPLITS, PairedDataset, Rejected, say_rejected
from fusemix_core.data.gathering import Columns, Gatherer
from fusemix_core.data.hashes import HashMemory, reference_keys, text_keys
from fusemix_core.data.items import Items, first_occurrences
from fusemix_core.data.rows import Row
from fusemix_core.data.sources import expand, open_source
from fusemix_core.errors import DataError
from fusemix_core.home import home

if TYPE_CHECKING:
    from fusemix_core.specs import Takes

Progress = Callable[[str, int, int], None]

TRUST = "trust"
"""The column that says how far a row is to be trusted."""


def read_pairs(
    config: DataConfig,
    takes: Mapping[str, Takes],
    seed: int = 0,
    *,
    least: int = 2,
    optional: Collection[str] = (),
    progress: Progress | None = None,
) -> PairedDataset:
    """The paired dataset that `config` describes.

    takes: modality → how its items are read; the order is that of the columns of `links`.
    least: a row links so many modalities or is rejected (1 to read a gallery).
    optional: modalities that are left out where no source has a column for them.
    progress: called with (modality, done, total) while files are hashed.

    A row whose cells hold several values links every combination of them. Splits: `validation` and
    `test` by their own files, else by `split_column`, else as the source tells (Karpathy's files,
    the keys of a saved `DatasetDict`, folders named `train`, `val`, …). A part that none of these
    gives is taken from the training rows by seeded fraction; see `splits` for what stays together.
    A column `trust` says how far each row is to be trusted, from 0 to 1.
    With `config.unpaired` a training row with one item is no link and no fault: the item is in
    `unpaired`, unless it is linked or belongs together with what is held out.

    Raises `DataError` if a source is unusable or nothing usable is left. Otherwise rows that can't
    be used are in `rejected`; `check_bad` says whether they are too many.
    """
    fractions = splits.Fractions(config.validation_fraction, config.test_fraction)
    if not config.source:
        raise DataError("No data is given.", "Example: --data pairs.csv")
    if unknown := [m for m in config.columns if m not in takes]:
        raise DataError(
            f"A column is given for {unknown[0]}, but no encoder is.",
            f"Modalities of this run: {', '.join(takes)}.",
        )
    gatherer = Gatherer(takes, least, config.allow_outside, config.unpaired)
    warnings: list[str] = []
    sources = [(source, None) for source in config.source]
    sources += [
        (s, name) for s, name in ((config.validation, SPLITS[1]), (config.test, SPLITS[2])) if s
    ]
    found: dict[str, str] = {}
    seen: list[str] = []
    last = Path()
    for source, split in sources:
        before = len(gatherer)
        for path in expand(source):
            columns = _gather(gatherer, path, config, split, warnings, seen)
            found.update(dict.fromkeys(columns.modalities, ""))
            last = path
        _check_gathered(gatherer, before, source)
    absent = [m for m in takes if m not in found]
    for modality in absent:
        if modality not in optional:
            raise missing_column(modality, dict.fromkeys(seen), (), last)
    by_file = tuple(name for _, name in sources if name)
    dataset = _finish(gatherer, fractions, seed, warnings, by_file, progress)
    return dataset.leaving_out(absent) if absent else dataset


def pairs_from(
    values: Mapping[str, Sequence[Any]],
    takes: Mapping[str, Takes],
    *,
    split: Sequence[str | None] | None = None,
    group: Sequence[Any] | None = None,
    trust: Sequence[float | None] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    least: int = 2,
) -> PairedDataset:
    """A paired dataset from lists, one entry a row.

    values: modality → for each row a text, a path (str or Path, relative to the working folder),
    bytes, a PIL image, an `Audio` or `(samples, rate)`, None where it is missing, or a list of
    these.
    split: for each row `train`, `validation` or `test` (None: train); without it the split is drawn
    by the fractions. group: rows with one value stay together. trust: how far each row is to be
    trusted, from 0 to 1 (None: 1).
    """
    fractions = splits.Fractions(validation_fraction, test_fraction)
    told = {"split": split, "group": group, TRUST: trust}
    told = {name: column for name, column in told.items() if column is not None}
    lists = {**values, **told}
    lengths = {name: len(column) for name, column in lists.items()}
    if set(values) != set(takes) or len(set(lengths.values())) != 1:
        raise DataError(
            f"The lists don't fit: {lengths} for the modalities {', '.join(takes)}.",
            "Give one list a modality, all of one length, with None where an item is missing.",
        )
    gatherer = Gatherer(takes, least, allow_outside=True)
    columns = Columns(
        {m: (m,) for m in takes},
        group="group" if "group" in told else None,
        trust=TRUST if TRUST in told else None,
    )
    for i in range(next(iter(lengths.values()))):
        cells = {name: column[i] for name, column in lists.items()}
        gatherer.add(Row("<list>", i + 1, cells, cells.get("split"), base="."), columns)
    _check_gathered(gatherer, 0, "<list>")
    return _finish(gatherer, fractions, seed, [], SPLITS[1:] if split else (), None)


def _gather(
    gatherer: Gatherer,
    path: Path,
    config: DataConfig,
    split: str | None,
    warnings: list[str],
    seen: list[str],
) -> Columns:
    """Add all rows of one file or folder; returns the columns found in it."""
    rows, filled, notes = open_source(path)
    available = list(filled)
    if not available:
        bad = [r for r in rows if isinstance(r, Rejected)]
        raise DataError(f"no row can be read\n{say_rejected(bad)}".rstrip(), path=path)
    seen += available
    found, ambiguous = find_columns(gatherer.takes, filled, config.columns, path)
    if len(found) < (1 if gatherer.unpaired and split is None else gatherer.least):
        absent = next(m for m in gatherer.takes if m not in found)
        raise missing_column(absent, available, sum(found.values(), []), path)
    split_column = None if split else config.split_column
    for what, name in (("--group-by", config.group_by), ("--split-column", split_column)):
        if name and name not in available:
            raise DataError(f"there is no column '{name}' ({what})", say(available), path=path)
    if "split" in available and not (config.split_column or config.validation or config.test):
        notes.append(f"{path}: the column 'split' is not used; --split-column split uses it.")
    warnings += [w for w in notes + ambiguous if w not in warnings]
    taken = {config.group_by, split_column}.union(*found.values())
    trust = TRUST if TRUST in available and TRUST not in taken else None
    columns = Columns(found, config.group_by, split_column, split, trust)
    for row in rows:
        if isinstance(row, Rejected):
            gatherer.reject(row)
        else:
            gatherer.add(row, columns)
    if gatherer.unknown_splits:
        values = sorted(gatherer.unknown_splits)
        shown = ", ".join(map(repr, values[:20]))
        raise DataError(
            f"{len(values)} values are no split: {shown}",
            "A split is train, validation (val, valid, dev) or test.",
            path=path,
        )
    return columns


def _check_gathered(gatherer: Gatherer, before: int, source: str) -> None:
    if len(gatherer) == before:
        raise DataError(
            f"no row can be used\n{say_rejected(gatherer.rejected)}".rstrip(),
            f"A row links items of {gatherer.least} modalities or more; asked for: "
            f"{', '.join(gatherer.takes)}.",
            path=source,
        )


def _finish(
    gatherer: Gatherer,
    fractions: splits.Fractions,
    seed: int,
    warnings: list[str],
    by_file: tuple[str, ...],
    progress: Progress | None,
) -> PairedDataset:
    """Unite items by content, drop what can't be read, and split."""
    links = gatherer.link_table()
    origin = gatherer.origin()
    rejected = dict.fromkeys(gatherer.rejected)
    memory = HashMemory(home() / "hashes.sqlite")
    items: dict[str, Items] = {}
    for k, modality in enumerate(gatherer.takes):
        items[modality], number, faults = _unite(gatherer, modality, memory, progress)
        entries = links[:, k].copy()
        links[:, k] = np.where(entries >= 0, number[entries] if len(number) else -1, -1)
        for i in np.flatnonzero((entries >= 0) & (links[:, k] < 0)) if faults else ():
            path, row = origin[i]
            rejected[Rejected(path, row, modality, faults[int(entries[i])])] = None
    linked = (links >= 0).sum(axis=1) >= gatherer.least
    keep = np.flatnonzero(linked)
    if not len(keep):
        raise DataError(f"No row can be used.\n{say_rejected(list(rejected))}".rstrip())
    told, group = np.array(gatherer.split, np.int8), np.array(gatherer.group, np.int64)
    origin = origin.select(keep)
    parts, notes = splits.assign(
        links[keep],
        items,
        told[keep],
        group[keep] if gatherer.groups else None,
        fractions,
        seed,
        by_file,
    )
    warnings += notes + [memory.warning] * bool(memory.warning)
    unpaired = {}
    if gatherer.unpaired:
        held = told > 0
        held[keep[np.concatenate([parts[name] for name in SPLITS[1:]])]] = True
        unpaired = dict(zip(items, splits.unpaired(links, group, linked, held), strict=True))
    trust = np.array(gatherer.trust, np.float32)[keep]
    for name in SPLITS[1:]:
        parts[name] = parts[name][trust[parts[name]] > 0]
    if count := int((trust == 0).sum()):
        warnings.append(
            f"Rows of trust 0 ({count:,}) measure nothing, and train only objectives that take "
            "trust."
        )
    return PairedDataset(
        items,
        links[keep],
        parts,
        origin,
        list(rejected),
        gatherer.rows_read,
        warnings,
        gatherer.least,
        None if (trust == 1).all() else trust,
        unpaired,
    )


def _unite(
    gatherer: Gatherer, modality: str, memory: HashMemory, progress: Progress | None
) -> tuple[Items, np.ndarray, dict[int, str]]:
    """(items unique by content; int64 `[n]` the item of each reference, or -1; why it is -1)."""
    gathered, takes = gatherer.gathered[modality], gatherer.takes[modality]
    references, faults = gathered.references, {}
    if takes == "text":
        keys = text_keys(references)
    else:
        tell = None if progress is None else lambda done, total: progress(modality, done, total)
        keys, faults = reference_keys(references, memory, tell)
    good = np.setdiff1d(np.arange(len(references)), np.fromiter(faults, np.int64))
    first, inverse = first_occurrences(keys[good])
    number = np.full(len(references), -1, np.int64)
    number[good] = inverse
    origin = gatherer.origin(gathered.file, gathered.row).select(good[first])
    unique = [references[i] for i in good[first]]
    return Items(modality, takes, unique, keys[good[first]], origin), number, faults
