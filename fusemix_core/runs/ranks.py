"""The ranks of the test queries of a run, as its folder lists them, and how runs differ in them."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from fusemix_core.config import read_toml
from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError
from fusemix_core.evaluation.bootstrap import (
    RESAMPLES,
    cluster_sums,
    components,
    interval,
    resample,
    share,
)
from fusemix_core.evaluation.directions import KS
from fusemix_core.runs.baselines import label_of
from fusemix_core.saved import folder as files
from fusemix_core.saved.named import check_named

Key = tuple[str, str, str, int, int]
"""Modality that asks, modality that is searched, file and row of the query, and which of those of
that row it is."""


@dataclass(frozen=True)
class Answer:
    """A query's rank and place in the data; its item, the first answer and the partner as texts or
    paths."""

    rank: int
    file: str
    row: int
    item: str
    first: str
    partner: str


@dataclass(frozen=True)
class RunRanks:
    """The ranks of a run on its test rows.

    Attributes:
        name: to show.
        folder: of the run.
        split: `test`, or `validation` if there is no test split.
        answers: query → its answer.
        takes: modality → medium of its items.
        base: the folder that paths of items start from.
    """

    name: str
    folder: Path
    split: str
    answers: Mapping[Key, Answer]
    takes: Mapping[str, str]
    base: str


@dataclass(frozen=True)
class Lead:
    """By how much one run is ahead of another, in percent points, with 95% intervals.

    Attributes:
        first, second: the runs.
        at: K → (mean of the directions, interval).
        directions: direction → the same.
    """

    first: str
    second: str
    at: Mapping[int, tuple[float, list[float] | None]]
    directions: Mapping[str, Mapping[int, tuple[float, list[float] | None]]]


def read_runs(paths: Sequence[str | Path]) -> tuple[list[RunRanks], list[Key]]:
    """The ranks of runs, and the queries that all were tested on.

    Files of the data are the same if their whole paths are, or their paths from the folders that
    the runs were started in: only these survive a copy of run and data.

    Raises:
        ConfigError: one has no ranks, or they were tested on other items.
    """
    runs = with_names([read_run(path) for path in paths])
    try:
        return runs, check_same(runs)
    except ConfigError as error:
        copied = with_names([read_run(path, below=True) for path in paths])
        try:
            return copied, check_same(copied)
        except ConfigError:
            raise error from None


def read_run(path: str | Path, below: bool = False) -> RunRanks:
    """The ranks that a run of `fusemix align` or `fusemix extend` has written.

    Args:
        path: its folder, or that of its model.
        below: whether files of the data are known by their paths from the folder that the run was
            started in; else by their whole paths.

    Raises:
        ConfigError: there are none.
        ArtefactError: there is no such folder.
    """
    given = Path(path)
    folder = next((f for f in (given, given.parent) if (f / "model").is_dir()), given)
    table = next((f for s in ("test", "validation") if (f := folder / f"{s}_ranks.csv").is_file()),
                 None)  # fmt: skip
    if table is None:
        check_named(path)
        raise ConfigError(
            f"{path} has no test_ranks.csv, so it can't be compared.",
            "Name folders that `fusemix align` or `fusemix extend` wrote.",
        )
    data = read_toml(folder / "config.toml").get("data", {})
    base = data.get("base") or "" if isinstance(data, Mapping) else ""
    answers: dict[Key, Answer] = {}
    times: Counter[tuple[str, str, str, int]] = Counter()
    places: dict[str, str] = {}
    try:
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name, number = row["file"], int(row["row"])
                if name not in places:
                    whole = os.path.realpath(os.path.join(base, name))
                    start = os.path.realpath(base)
                    places[name] = os.path.relpath(whole, start) if below else whole
                place = places[name]
                asked = row["query"], row["target"], place, number
                items = row["item"], row["first"], row["partner"]
                answers[*asked, times[asked]] = Answer(int(row["rank"]), name, number, *items)
                times[asked] += 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{table} can't be read: {error}", "Run it again.") from error
    encoders = files.read_config(folder / "model").encoders
    takes = {m: info.takes for m, info in encoders.items()}
    split = table.name.partition("_")[0]
    return RunRanks(label_of(str(path)), folder, split, answers, takes, base)


def with_names(runs: Sequence[RunRanks]) -> list[RunRanks]:
    """The runs, whose names all differ: those that don't are called by their folders."""
    names = [run.name for run in runs]
    return [
        replace(run, name=str(run.folder)) if names.count(run.name) > 1 else run for run in runs
    ]


def check_same(runs: Sequence[RunRanks]) -> list[Key]:
    """The queries of all runs, in the order of the first.

    Raises:
        ConfigError: they were tested on other rows.
    """
    first = runs[0]
    for other in runs[1:]:
        common = first.answers.keys() & other.answers.keys()
        if len(common) < len(first.answers) or len(common) < len(other.answers):
            raise ConfigError(
                f"{first.name} and {other.name} were not tested on the same items: "
                f"{len(first.answers) - len(common):,} queries of {first.name} aren't in "
                f"{other.name}, and {len(other.answers) - len(common):,} of {other.name} aren't in "
                f"{first.name}.",
                "Give both runs the same data, modalities, --seed and way of splitting.",
            )
        for key, answer in first.answers.items():
            inline = medium(first.takes[key[0]]).inline
            if inline and answer.item != other.answers[key].item:
                raise ConfigError(
                    f"{first.name} and {other.name} were not tested on the same texts: row "
                    f"{answer.row} of {answer.file} has another {key[0]}.",
                    "Give both runs the same columns.",
                )
    return list(first.answers)


def directions_of(keys: Sequence[Key]) -> list[str]:
    """The directions, in the order in which they occur."""
    return list(dict.fromkeys(f"{query}->{target}" for query, target, *_ in keys))


def recalls(run: RunRanks, keys: Sequence[Key]) -> dict[str, dict[int, float]]:
    """Direction → K → recall in percent; `mean` is that of the directions."""
    found: dict[str, dict[int, float]] = {}
    for name in directions_of(keys):
        own = np.array([run.answers[k].rank for k in keys if f"{k[0]}->{k[1]}" == name])
        found[name] = {k: 100 * float((own <= k).mean()) for k in KS}
    found["mean"] = {k: float(np.mean([row[k] for row in found.values()])) for k in KS}
    return found


def leads(runs: Sequence[RunRanks], keys: Sequence[Key], seed: int = 0) -> list[Lead]:
    """The lead of each run over each that comes after it: what the bootstrap draws is groups of
    linked items, for both at once."""
    return [_lead(a, b, keys, seed) for a, b in combinations(runs, 2)]


def _lead(first: RunRanks, second: RunRanks, keys: Sequence[Key], seed: int) -> Lead:
    names = directions_of(keys)
    labels = _clusters(first, keys)
    of = np.array([names.index(f"{k[0]}->{k[1]}") for k in keys])
    ranks = [np.array([run.answers[k].rank for k in keys]) for run in (first, second)]
    gain = np.stack([(ranks[0] <= k).astype(float) - (ranks[1] <= k) for k in KS], axis=1)
    values = np.concatenate([np.ones((len(keys), 1)), gain], axis=1)
    parts = [of == d for d in range(len(names))]
    sums = cluster_sums([labels[p] for p in parts], [values[p] for p in parts])
    drawn = resample(sums, RESAMPLES, seed)
    table: dict[str, dict[int, tuple[float, list[float] | None]]] = {}
    spread = []
    for d, name in enumerate(names):
        own = 100 * gain[parts[d]].mean(axis=0)
        if drawn is not None:
            part = drawn[:, 4 * d : 4 * d + 4]
            spread.append(share(part[:, 1:], part[:, :1]))
        table[name] = {
            k: (float(own[i]), interval(spread[d][:, i]) if spread else None)
            for i, k in enumerate(KS)
        }
    mean = None if not spread else np.mean(spread, axis=0)
    at = {
        k: (
            float(np.mean([row[k][0] for row in table.values()])),
            None if mean is None else interval(mean[:, i]),
        )
        for i, k in enumerate(KS)
    }
    return Lead(first.name, second.name, at, table)


def _clusters(run: RunRanks, keys: Sequence[Key]) -> np.ndarray:
    """int64 `[n]`: queries with the same number share an item or are partners."""
    numbers: dict[tuple[str, str], int] = {}

    def number(modality: str, item: str) -> int:
        return numbers.setdefault((modality, item), len(numbers))

    pairs = [
        (number(k[0], run.answers[k].item), number(k[1], run.answers[k].partner)) for k in keys
    ]
    links = np.array([(node, row) for row, pair in enumerate(pairs) for node in pair], np.int64)
    labels = components(links, [len(numbers), len(pairs)])[1]
    return labels


def wins(runs: Sequence[RunRanks], keys: Sequence[Key], run: RunRanks, most: int) -> Iterator[Key]:
    """The queries at which a run is furthest ahead of the best of the others: it has the partner
    among its first ten, and the ratio of the ranks is largest."""
    others = [other for other in runs if other is not run]
    found = []
    for place, key in enumerate(keys):
        own = run.answers[key].rank
        best = min(other.answers[key].rank for other in others)
        if own <= max(KS) and best > own:
            found.append((-best / own, place, key))
    for _, _, key in sorted(found)[:most]:
        yield key
