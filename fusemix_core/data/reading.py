"""Reads paired datasets: from files as a `DataConfig` says, or from lists in Python."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fusemix_core.config import DataConfig
from fusemix_core.data import splits
from fusemix_core.data.bulk import add_block
from fusemix_core.data.cells import FactColumn, check_names
from fusemix_core.data.columns import find_columns, missing_column, no_column, say
from fusemix_core.data.dataset import SPLITS, PairedDataset, Rejected, say_rejected, trust_hint
from fusemix_core.data.facts import TRUST
from fusemix_core.data.file_columns import take_file_columns
from fusemix_core.data.finishing import Progress, finish
from fusemix_core.data.gathering import Columns, Gatherer
from fusemix_core.data.held import held
from fusemix_core.data.leftover import Source, take_leftover
from fusemix_core.data.rows import Block, Row
from fusemix_core.data.rules import Rules
from fusemix_core.data.sources import expand, open_source
from fusemix_core.data.templates import sources_of
from fusemix_core.errors import DataError

_HEAD = 200
"""Rows by which it is seen which columns hold files."""
NO_TRUST = "none"
"""As `DataConfig.trust_column`: no column says how far rows are to be trusted."""


def read_pairs(
    config: DataConfig,
    takes: Mapping[str, str],
    seed: int = 0,
    *,
    least: int = 2,
    optional: Collection[str] = (),
    repeats: bool = False,
    progress: Progress | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> PairedDataset:
    """The paired dataset that `config` describes.

    A row whose cells contain several values links every combination of them. Splits: `validation`
    and `test` by their own files, else by `split_column`, else as the source says (Karpathy's
    files, the keys of a saved `DatasetDict`, folders named `train`, `val`, …). A part that none of
    these gives is taken from the training rows by seeded fraction; see `splits` for what stays
    together. With `config.unpaired` a training row with one item is neither a link nor a fault:
    the item is in `unpaired`, unless it is linked or belongs together with what is held out.

    Args:
        config: the sources, their columns and splits.
        takes: modality → how its items are read; the order is that of the columns of `links`.
        seed: of the splits that are drawn.
        least: how many modalities a row links; one with fewer is rejected. With 1 a row may have a
            single item, as in a gallery or in data to predict from.
        optional: modalities that are left out if no source has a column for them.
        repeats: whether rows that are equal count each for itself, as cases do; else once, as pairs
            do.
        progress: called with (modality, done, total) while files are hashed.
        options: fact → the option that names its column, if it isn't `--fact`; for errors.

    Returns:
        The dataset. Rows that can't be used are in `rejected`; `check_bad` says whether they are
        too many.

    Raises:
        DataError: a source is unusable, a column is missing, or nothing usable is left.

    Example:
        `read_pairs(DataConfig(("pairs.csv",)), {"image": "image", "text": "text"})`
    """
    fractions = splits.Fractions(config.validation_fraction, config.test_fraction)
    if not config.source:
        raise DataError("No data is given.", "Example: --data pairs.csv")
    if unknown := [m for m in config.columns if m not in takes]:
        raise DataError(
            f"A column is given for {unknown[0]}, but no encoder is.",
            f"Modalities of this run: {', '.join(takes)}.",
        )
    reading, sources = _Reading(config, takes, least, options), _sources(config)
    for source, split in sources:
        reading.add_all(source, split)
    absent = reading.absent(optional)
    by_file = tuple(name for _, name in sources if name)
    dataset = finish(
        reading.gatherer, fractions, seed, reading.warnings, by_file, progress, repeats=repeats
    )
    dataset.columns = {m: list(names) for m, names in reading.columns.items()}
    return dataset.leaving_out(absent) if absent else dataset


def _sources(config: DataConfig) -> list[tuple[str, str | None]]:
    """The sources, each with the split that is its own."""
    own = ((config.validation, SPLITS[1]), (config.test, SPLITS[2]))
    return [*((s, None) for s in config.source), *((s, name) for s, name in own if s)]


def pairs_from(
    values: Mapping[str, Sequence[Any]],
    takes: Mapping[str, str],
    *,
    split: Sequence[str | None] | None = None,
    group: Sequence[Any] | None = None,
    trust: Sequence[float | None] | None = None,
    facts: Mapping[str, Sequence[Any]] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    least: int = 2,
) -> PairedDataset:
    """A paired dataset from lists, one entry per row.

    Args:
        values: modality → for each row a text, a path (str or Path, relative to the working
            folder), bytes, a PIL image, an `Audio` or `(samples, rate)`, None if it is missing, or
            a list of these.
        takes: modality → how its items are read.
        split: for each row `train`, `validation` or `test` (None: train); without it the split is
            drawn by the fractions.
        group: rows with one value stay together.
        trust: how far each row is to be trusted, from 0 to 1 (None: 1).
        facts: further values of the rows by name, None if missing. A name may end in its kind, such
            as `age:number`; otherwise the kind is guessed.
        validation_fraction, test_fraction, seed: of the splits that are drawn.
        least: how many modalities a row links at least.

    Raises:
        DataError: the lists differ in length, or nothing in them can be used.

    Example:
        `pairs_from({"image": paths, "text": captions}, takes, facts={"age": ages})`
    """
    fractions = splits.Fractions(validation_fraction, test_fraction)
    places = {name: FactColumn.parse(name) for name in facts or {}}
    wanted = {place.column: place for place in places.values()}
    check_names(wanted, takes)
    given = {"<split>": split, "<group>": group, "<trust>": trust}
    given = {name: column for name, column in given.items() if column is not None}
    cells = {places[name].column: column for name, column in (facts or {}).items()}
    lists = {**cells, **given, **values}
    lengths = {name: len(column) for name, column in lists.items()}
    if set(values) != set(takes) or len(set(lengths.values())) != 1:
        raise DataError(
            f"The lists don't fit: {lengths} for the modalities {', '.join(takes)}.",
            "Give one list per modality, all of one length, with None where an item is missing.",
        )
    gatherer = Gatherer(takes, least, allow_outside=True, facts=wanted)
    columns = Columns(
        {m: (m,) for m in takes},
        group="<group>" if group is not None else None,
        trust="<trust>" if trust is not None else None,
    )
    for i in range(next(iter(lengths.values()))):
        row: dict[str, Any] = {name: column[i] for name, column in lists.items()}
        gatherer.add(Row("<list>", i + 1, row, row.get("<split>"), base="."), columns)
    _check_gathered(gatherer, 0, "<list>")
    return finish(gatherer, fractions, seed, [], SPLITS[1:] if split else (), None)


class _Reading:
    """Files and folders on their way into one gatherer, and what is to be told of them."""

    def __init__(
        self,
        config: DataConfig,
        takes: Mapping[str, str],
        least: int,
        options: Mapping[str, str],
    ) -> None:
        facts = {name: FactColumn.parse(text) for name, text in config.facts.items()}
        check_names(facts, takes)
        self.config, self.facts, self.options = config, facts, options
        # Paths in a table that Python holds are the caller's own.
        outside = config.allow_outside or all(held(source) for source in config.files)
        self.gatherer = Gatherer(takes, least, outside, config.unpaired, facts, Rules.of(config))
        self.warnings: list[str] = []
        self.columns: dict[str, dict[str, None]] = {}
        self._seen: dict[str, None] = {}
        self._last = Path()
        self._lacking: dict[tuple[str, str], list[Path]] = {}

    def add_all(self, source: str, split: str | None) -> None:
        """`add` every path of a source. Raises `DataError` if none has a row that can be used."""
        before = len(self.gatherer)
        for path in expand(source):
            self.add(path, split)
        _check_gathered(self.gatherer, before, source)

    def add(self, path: Path, split: str | None) -> None:
        """Add all rows of a file or folder; `split` is that of the rows, if they have a file of
        their own."""
        rows, filled, notes = open_source(path, self.config)
        if not filled:
            bad = [r for r in rows if isinstance(r, Rejected)]
            hint = "" if bad else "It has no rows: a table has one per pair, below the columns."
            raise DataError(f"no row can be read\n{say_rejected(bad)}".rstrip(), hint, path=path)
        self._seen |= dict.fromkeys(filled)
        head = list(islice(rows, _HEAD))
        columns, more = self._columns(path, filled, split, head)
        for modality, names in columns.modalities.items():
            self.columns.setdefault(modality, {}).update(dict.fromkeys(names))
        self._last = path
        for row in chain(head, rows):
            if isinstance(row, Rejected):
                self.gatherer.reject(row)
            elif isinstance(row, Block):
                add_block(self.gatherer, row, columns)
            else:
                self.gatherer.add(row, columns)
        self.warnings += [w for w in notes + more if w not in self.warnings]
        self._check_splits(path)

    def _columns(
        self,
        path: Path,
        filled: Mapping[str, int],
        split: str | None,
        head: Sequence[Row | Rejected | Block],
    ) -> tuple[Columns, list[str]]:
        """(which columns of a source hold what, warnings)."""
        config, gatherer = self.config, self.gatherer
        found, warnings = find_columns(gatherer.takes, filled, config.columns, path)
        rows = [row for row in head if isinstance(row, Row)]
        if not (config.prefix or config.suffix):
            free = [m for m in gatherer.takes if m not in config.columns]
            warnings += take_file_columns(found, {m: gatherer.takes[m] for m in free}, rows, path)
        source = Source(path, filled, self._used(filled, found), rows)
        warnings += take_leftover(found, gatherer.media, source, config.drop, self.columns)
        if len(found) < (1 if gatherer.unpaired and split is None else gatherer.least):
            absent = next(m for m in gatherer.takes if m not in found)
            raise missing_column(absent, filled, sum(found.values(), []), path)
        split_column = None if split else config.split_column
        for what, name in (("--group-by", config.group_by), ("--split-column", split_column)):
            if name and name not in filled:
                raise DataError(f"there is no column '{name}' ({what})", say(filled), path=path)
        if "split" in filled and not (config.split_column or config.validation or config.test):
            note = f"{path}: the column 'split' is not used; --split-column split uses it."
            warnings.insert(0, note)
        for option, column in self._named_columns():
            if column not in filled:
                self._lacking.setdefault((option, column), []).append(path)
        trust = self._trust_column(
            filled, {config.group_by, split_column, *sources_of(sum(found.values(), []))}
        )
        return Columns(found, config.group_by, split_column, split, trust), warnings

    def _used(self, filled: Mapping[str, int], found: Mapping[str, list[str]]) -> set[str | None]:
        """The columns that are read as an item, a fact, a group, a split or a trust."""
        used = {*sources_of(sum(found.values(), [])), self.config.group_by}
        return {
            *used,
            *(place.column for place in self.facts.values()),
            self.config.split_column,
            self._trust_column(filled, used),
        }

    def _trust_column(self, filled: Mapping[str, int], taken: Collection[str | None]) -> str | None:
        """The column that says how far rows are to be trusted: as named, else `trust` unless it is
        read as something else."""
        named = self.config.trust_column
        if named is not None:
            return None if named == NO_TRUST else named
        taken = {*taken, *(place.column for place in self.facts.values())}
        return TRUST if TRUST in filled and TRUST not in taken else None

    def _named_columns(self) -> Iterator[tuple[str, str]]:
        """(option, column) for each column of facts that the user names."""
        for name, place in self.facts.items():
            yield self.options.get(name, f"--fact {name}="), place.column
        if self.config.trust_column not in (None, NO_TRUST):
            yield "--trust-column ", self.config.trust_column

    def _check_splits(self, path: Path) -> None:
        if self.gatherer.unknown_splits:
            values = sorted(self.gatherer.unknown_splits)
            shown = ", ".join(map(repr, values[:20]))
            raise DataError(
                f"{len(values)} values aren't splits: {shown}",
                "A split is train, validation (val, valid, dev) or test.",
                path=path,
            )

    def absent(self, optional: Collection[str]) -> list[str]:
        """The optional modalities without a column. Raises `DataError` for any other column that
        no source has, and warns of one that only some have."""
        absent = [m for m in self.gatherer.takes if m not in self.columns]
        for modality in absent:
            if modality not in optional:
                raise missing_column(modality, self._seen, (), self._last)
        for (option, column), paths in self._lacking.items():
            if column not in self._seen and column not in self.gatherer.facts.seen:
                raise no_column(option, column, list(self._seen), paths[0])
            if column in self._seen:
                others = f" and {len(paths) - 1} others have" if len(paths) > 1 else " has"
                self.warnings.append(
                    f"{paths[0]}{others} no column '{column}' ({option}{column}): the value is "
                    "missing in their rows."
                )
        return absent


def _check_gathered(gatherer: Gatherer, before: int, source: str) -> None:
    if len(gatherer) == before:
        raise DataError(
            f"no row can be used\n{say_rejected(gatherer.rejected)}".rstrip(),
            f"{trust_hint(gatherer.rejected)}"
            f"A row links items of {gatherer.least} modalities or more; asked for: "
            f"{', '.join(gatherer.takes)}.",
            path=source,
        )
