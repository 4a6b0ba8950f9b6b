"""Recall for each value of a column: for whom a model is good, and for whom it isn't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError, UnknownNameError
from fusemix_core.evaluation.answers import Answers, directions
from fusemix_core.evaluation.bootstrap import (
    RESAMPLES,
    cluster_sums,
    components,
    interval,
    resample,
    share,
)
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Measured
from fusemix_core.sections import Section, Share, Table

SHOWN = 30
"""Values that the report shows of a column, those with most queries."""


class GroupsEvaluator(Evaluator):
    """R@1 and R@10 of the queries with each value of a fact, in all directions.

    A query belongs to each value that its rows in the split have. The gallery stays whole, so that
    values can be compared with each other and with all queries.

    Args:
        fact: the fact, of kind `class`; all such facts if empty.
        resamples: of the bootstrap over groups of linked items; 0 leaves out the intervals.
    """

    uses = ("facts",)

    def __init__(self, fact: str = "", resamples: int = RESAMPLES) -> None:
        self.fact, self.resamples = fact, resamples

    def __call__(self, data: Measured) -> dict[str, Any]:
        facts = self._facts(data.facts)
        found: dict[str, Any] = {"unit": "percent", "scorer": data.scorer}
        others = {
            name: {(a.query, a.target): a for a in directions(other)}
            for name, other in data.baselines.items()
        }
        for one in directions(data):
            sides = one.query, one.target
            beside = {name: known[sides] for name, known in others.items() if sides in known}
            for name, fact in facts.items():
                own = found.setdefault(name, {})
                own[f"{one.query}->{one.target}"] = self._by_value(one, fact, data, beside)
        return found

    def _facts(self, facts: Mapping[str, Fact]) -> dict[str, Fact]:
        classes = {name: fact for name, fact in facts.items() if fact.kind == "class"}
        if self.fact and self.fact not in classes:
            raise UnknownNameError.of("fact of kind class", self.fact, classes)
        if not classes:
            raise DataError(
                "No fact has classes to group by.", "Add one: --by COLUMN, or --fact NAME=COLUMN."
            )
        return {self.fact: classes[self.fact]} if self.fact else classes

    def _by_value(
        self, found: Answers, fact: Fact, data: Measured, beside: Mapping[str, Answers]
    ) -> dict[str, Any]:
        modalities = list(data.embeddings)
        columns = [modalities.index(m) for m in (found.query, found.target)]
        links = data.links[:, columns].numpy()
        both = (links >= 0).all(axis=1)
        sizes = [len(data.embeddings[m]) for m in (found.query, found.target)]
        cluster = components(links[both], sizes)[0][found.queries.numpy()]
        place = np.full(sizes[0], -1)
        place[found.queries.numpy()] = np.arange(len(found.queries))
        hits = torch.stack([found.rank <= k for k in (1, 10)], dim=1).double().numpy()
        theirs = {name: other.right.double().numpy() for name, other in beside.items()}
        known = both & (fact.values >= 0)
        value, query = fact.values[known], place[links[known, 0]]
        table = {}
        for i in np.unique(value):
            mine = np.unique(query[value == i])
            counted = np.concatenate([np.ones((len(mine), 1)), hits[mine]], axis=1)
            drawn = resample(cluster_sums([cluster[mine]], [counted]), self.resamples, data.seed)
            r1, r10 = share(counted.sum(axis=0)[1:], len(mine))
            table[fact.names[i]] = {
                "queries": len(mine),
                "r1": float(r1),
                "r1_interval": None if drawn is None else interval(share(drawn[:, 1], drawn[:, 0])),
                "r10": float(r10),
                "baselines": {name: 100 * float(r[mine].mean()) for name, r in theirs.items()},
            }
        return table

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        sections = []
        for name, by_direction in metrics.items():
            if not isinstance(by_direction, Mapping):
                continue
            tables = [_table(name, direction, table) for direction, table in by_direction.items()]
            sections.append(
                Section(
                    f"By {name}",
                    f"On the {data.split} split, in percent, with 95% intervals; the whole gallery "
                    f"is searched. Scored with {metrics['scorer']}.",
                    tables=tables,
                )
            )
        return sections


def _table(fact: str, direction: str, table: Mapping[str, Any]) -> Table:
    """The recalls of each value of a fact in one direction, and the R@1 of baselines."""
    beside = list(next(iter(table.values()))["baselines"]) if table else []
    rows = [
        [
            value,
            row["queries"],
            Share(row["r1"], row["r1_interval"]),
            Share(row["r10"]),
            *(Share(row["baselines"][name]) for name in beside),
        ]
        for value, row in _largest(table)
    ]
    columns = [fact, "queries", "R@1", "R@10", *(f"R@1 of {name}" for name in beside)]
    return Table(columns, rows, _caption(direction, table))


def _largest(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(table.items(), key=lambda row: -row[1]["queries"])[:SHOWN]


def _caption(direction: str, table: Mapping[str, Any]) -> str:
    rest = len(table) - SHOWN
    more = f"; {rest:,} more values are in results.json" if rest > 0 else ""
    return direction.replace("->", " → ", 1) + more
