"""Comparing runs on the test items that they share: who is ahead, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from fusemix_core.data.media import Shown, medium
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.evaluation.directions import KS
from fusemix_core.fusion.parts import Measures
from fusemix_core.reports.gallery import Case, CaseGroup, CaseItem, GalleryPage, write_gallery
from fusemix_core.runs.ranks import (
    Key,
    Lead,
    RunRanks,
    leads,
    read_runs,
    recalls,
    wins,
)
from fusemix_core.runs.scores import RunScores, is_fused, measured, read_scores, with_names
from fusemix_core.sections import Section, Share, Table

EXAMPLES = 8
"""Queries that are shown where a run wins."""

Recalls = dict[str, dict[int, float]]


@dataclass
class Comparison:
    """Runs beside each other.

    Attributes:
        runs: those that were compared.
        keys: the queries that all were tested on.
        recalls: run → direction → K → recall in percent.
        leads: of each run over each that comes after it.
    """

    runs: list[RunRanks]
    keys: list[Key]
    recalls: dict[str, Recalls]
    leads: list[Lead]

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""

        def told(at: Any) -> dict[str, Any]:
            return {f"r{k}": {"ahead": ahead, "interval": near} for k, (ahead, near) in at.items()}

        return {
            "split": self.runs[0].split,
            "queries": len(self.keys),
            "runs": {
                name: {d: {f"r{k}": v for k, v in row.items()} for d, row in rows.items()}
                for name, rows in self.recalls.items()
            },
            "ahead": [
                {"first": lead.first, "second": lead.second, "mean": told(lead.at),
                 "directions": {name: told(at) for name, at in lead.directions.items()}}
                for lead in self.leads
            ],
            "wins": {run.name: [list(key) for key in self._wins(run)] for run in self.runs},
        }  # fmt: skip

    def sections(self) -> list[Section]:
        """The recall of each run, and the leads."""
        ks = [f"R@{k}" for k in KS]
        means = [
            [name, *(Share(rows["mean"][k]) for k in KS)] for name, rows in self.recalls.items()
        ]
        each = [
            [f"{direction.replace('->', ' → ', 1)}: {name}", *(Share(row[k]) for k in KS)]
            for name, rows in self.recalls.items()
            for direction, row in rows.items()
            if direction != "mean"
        ]
        ahead = [
            [f"{lead.first} over {lead.second}", *(_lead(*lead.at[k]) for k in KS), _verdict(lead)]
            for lead in self.leads
        ]
        return [
            Section(
                "Recall",
                f"{len(self.keys):,} queries of the {self.runs[0].split} split, the same for all.",
                [Table(["run", *ks], means, "Mean of the directions, %"),
                 Table(["direction", *ks], each, "By direction, %")],
            ),
            Section(
                "Who is ahead",
                "",
                [Table(["", *ks, "at R@1"], ahead, "Percent points, with 95% intervals")],
                note="The intervals are paired: groups of linked items are drawn for both runs at "
                "once. If one contains 0, the runs may be equally good.",
            ),
        ]  # fmt: skip

    def write_page(self, path: str | Path) -> Path:
        """Write a page of tables, and of queries at which each run is furthest ahead."""
        title = " and ".join(run.name for run in self.runs)
        groups = [self._group(run) for run in self.runs]
        page = GalleryPage(f"{title} compared", sections=self.sections(), groups=groups)
        return write_gallery(path, page)

    def _wins(self, run: RunRanks) -> list[Key]:
        return list(wins(self.runs, self.keys, run, EXAMPLES))

    def _group(self, run: RunRanks) -> CaseGroup:
        text = "Queries with the largest ratio of the best other rank to this run's."
        return CaseGroup(f"Where {run.name} wins", text, [self._case(k) for k in self._wins(run)])

    def _case(self, key: Key) -> Case:
        query, target, *_ = key
        ranks = ", ".join(f"{run.name} {run.answers[key].rank:,}" for run in self.runs)
        own = self.runs[0]
        answer = own.answers[key]
        items = [
            CaseItem(query, shown(own, query, answer.item)),
            CaseItem(f"its {target}", shown(own, target, answer.partner)),
        ]
        for run in self.runs:
            if run.answers[key].rank > 1:
                first = run.answers[key].first
                items.append(CaseItem(f"first in {run.name}", shown(run, target, first)))
        return Case(f"{answer.file}, row {answer.row}", f"Rank of its {target}: {ranks}.", items)


@dataclass
class PredictorComparison:
    """Runs of `fusemix fuse` beside each other.

    Attributes:
        runs: those that were compared.
        measures: the primary metric of each.
    """

    runs: list[RunScores]
    measures: Measures

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        names = [run.name for run in self.runs]
        return {
            "metric": self.metric,
            "rows": self.rows,
            "runs": {
                n: {"value": self.measures.value(n), "interval": self.measures.interval(n)}
                for n in names
            },
            "ahead": [
                {**self.measures.difference(a, b).as_dict(), "first": a, "second": b}
                for a, b in combinations(names, 2)
            ],
        }

    @property
    def metric(self) -> str:
        """The primary metric of the task."""
        return self.runs[0].parts[0].task.primary

    @property
    def rows(self) -> int:
        """How many test rows there are."""
        return sum(map(len, self.runs[0].keys))

    def sections(self) -> list[Section]:
        """The metric of each run, and by how much one is better than another."""
        found = self.as_dict()
        values = [
            [name, _digits(one["value"], one["interval"], "")]
            for name, one in found["runs"].items()
        ]
        ahead = [
            [
                f"{one['first']} over {one['second']}",
                _digits(one["value"], one["interval"], "+"),
                _better(one),
            ]
            for one in found["ahead"]
        ]
        parts = len(self.runs[0].parts)
        folds = f" in {parts} folds, whose mean it is" if parts > 1 else ""
        return [
            Section(
                "Predictions",
                f"{self.metric} of {self.rows:,} test rows{folds}. The rows are the same for all.",
                [Table(["run", self.metric], values, "With 95% intervals")],
            ),
            Section(
                "Who is ahead",
                "",
                [Table(["", f"by {self.metric}", ""], ahead, "Above 0: the first is better")],
                note="The intervals are paired: groups of rows are drawn for both runs at once. If "
                "one contains 0, the runs may be equally good.",
            ),
        ]

    def write_page(self, path: str | Path) -> Path:
        """Write a page of the tables."""
        title = " and ".join(run.name for run in self.runs)
        return write_gallery(path, GalleryPage(f"{title} compared", sections=self.sections()))


def compare(paths: Sequence[str | Path]) -> Comparison | PredictorComparison:
    """Compare finished runs by their files on test rows: nothing is encoded.

    Runs of `fusemix align` and `extend` are compared by ranks, runs of `fusemix fuse` by the
    primary metric of their task.

    Args:
        paths: the folders of two runs or more.

    Raises:
        ConfigError: one has nothing to compare by, or they were tested on other items.

    Example:
        compare(["runs/1", "runs/2"]).write_page("compare.html")
    """
    if len(paths) < 2:
        raise ConfigError("Two runs can be compared, or more.", "Example: fusemix compare r1 r2")
    fused = [is_fused(path) for path in paths]
    if any(fused) and not all(fused):
        raise ConfigError(
            f"{paths[fused.index(True)]} predicts, and {paths[fused.index(False)]} ranks items: "
            "they have no measure in common.",
            "Compare runs of `fusemix fuse` with each other, and runs of `fusemix align`.",
        )
    if all(fused):
        return _compare_predictors(paths)
    runs, keys = read_runs(paths)
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise ConfigError("A run is named twice.", "Name each once.")
    found = {run.name: recalls(run, keys) for run in runs}
    return Comparison(runs, keys, found, leads(runs, keys))


def _compare_predictors(paths: Sequence[str | Path]) -> PredictorComparison:
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise ConfigError("A run is named twice.", "Name each once.")
    runs = with_names([read_scores(path) for path in paths])
    return PredictorComparison(runs, measured(runs))


def _digits(value: float, near: Sequence[float] | None, sign: str) -> str:
    shown = f"{value:{sign}.4g}"
    return shown if near is None else f"{shown} [{near[0]:{sign}.4g}, {near[1]:{sign}.4g}]"


def _better(one: Mapping[str, Any]) -> str:
    near = one["interval"]
    if near is None or near[0] <= 0 <= near[1]:
        return "no difference shown"
    return f"{one['first'] if near[0] > 0 else one['second']} is better"


def shown(run: RunRanks, modality: str, item: str) -> Shown:
    """An item by its path or text; its name if it can't be shown here."""
    try:
        how = medium(run.takes[modality])
        path = item if how.inline else os.path.join(run.base, item)
        if not how.inline and not os.path.isfile(path):
            return Shown(note=item)
        return how.show(item, lambda: how.decode(item if how.inline else Path(path)))
    except (FusemixError, OSError, ValueError):
        return Shown(note=item)


def _lead(ahead: float, near: Sequence[float] | None) -> str:
    shown = f"{ahead:+.1f}"
    return shown if near is None else f"{shown} [{near[0]:.1f}, {near[1]:.1f}]"


def _verdict(lead: Lead) -> str:
    _, near = lead.at[KS[0]]
    if near is None or near[0] <= 0 <= near[1]:
        return "no difference shown"
    return f"{lead.first if near[0] > 0 else lead.second} is better"
