"""A benchmark of re-rankers as people read it: gains with intervals, weights and costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.benchmark.columns import Column
from fusemix_core.benchmark.hits import difference
from fusemix_core.benchmark.lines import CHOSEN, Line
from fusemix_core.benchmark.summary import Gap, Place
from fusemix_core.evaluation.directions import KS

REPORT = "report.md"
BEFORE = "no re-ranking"
"""The row of the fused model's own order."""
HEADS = (
    *("re-ranker", "R@1", "R@5", "R@10", "R@1 gained", ""),
    *("weight", "ms a query", "CPU s", "parameters"),
)
"""The columns of the table."""

Hits = Mapping[int, Line]
"""Seed → the test queries, and which of them were right, as `hits.difference` takes them."""


@dataclass(frozen=True)
class Row:
    """A re-ranker over the seeds, or the order of the fused model.

    Attributes:
        name: as it was asked for; `BEFORE` for the fused model.
        recalls: R@1, R@5, R@10 on test in percent, mean of both directions and of the seeds.
        hits: which test queries were right.
        gain: by how many percent points its R@1 is above that of the fused model, on the same
            queries; None for the fused model.
        lines: of its fits; none for the fused model.
    """

    name: str
    recalls: tuple[float, ...]
    hits: Hits
    gain: Gap | None = None
    lines: tuple[Line, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether its R@1 is better than that of the fused model."""
        if self.gain is None or self.gain.interval is None:
            return ""
        if self.gain.tied:
            return "no difference"
        return "better" if self.gain.mean > 0 else "worse"

    @property
    def weights(self) -> str:
        """The weight of the network's score by seed, chosen on validation."""
        return ", ".join(f"{line['weight']:g}" for line in self.lines)

    @property
    def ms(self) -> float:
        """Of a query, the median of the seeds."""
        return statistics.median(line["measured"]["cost"]["ms"] for line in self.lines)

    @property
    def cpu_seconds(self) -> float:
        """Of a fit, the median of the seeds."""
        return statistics.median(line["cpu_seconds"] for line in self.lines)

    @property
    def parameters(self) -> int:
        """Of the network, the most of all seeds."""
        return max(line["parameters"] for line in self.lines)


def summarised(lines: Sequence[Line]) -> list[Row]:
    """The fused model, then every re-ranker that was fitted, over the seeds."""
    good = [line for line in lines if "error" not in line]
    if not good:
        return []
    first = list({line["seed"]: line for line in good}.values())
    rows = [Row(BEFORE, recalls(first, "before"), hits(first, "before"))]
    for name in dict.fromkeys(line["reranker"] for line in good):
        own = tuple(line for line in good if line["reranker"] == name)
        after = hits(own, "after")
        gain = ahead(after, hits(own, "before"))
        rows.append(Row(name, recalls(own, "after"), after, gain, own))
    return rows


def recalls(lines: Sequence[Line], when: str, way: str | None = None) -> tuple[float, ...]:
    """R@1, R@5, R@10 `before` or `after`: means over the seeds and both directions, or one."""
    each = [
        found
        for line in lines
        for name, found in line["measured"][when]["directions"].items()
        if way in (None, name)
    ]
    return tuple(statistics.fmean(found[f"r{k}"] for found in each) for k in KS)


def hits(lines: Sequence[Line], when: str, way: str | None = None) -> Hits:
    """Which test queries were right `before` or `after`, of both directions or of one."""

    def chosen(table: Mapping[str, Any]) -> dict[str, Any]:
        return {name: found for name, found in table.items() if way in (None, name)}

    return {
        line["seed"]: {
            "test_items": line["test_items"],
            "queries": chosen(line["queries"]),
            "hits": {CHOSEN: chosen(line["hits"][when])},
            "scorer": CHOSEN,
        }
        for line in lines
    }


def ahead(first: Hits, second: Hits) -> Gap:
    """How far the first is ahead of the second in R@1, with the paired interval; of the seeds that
    both have."""
    found = difference(first, second)
    if found is None:
        return Gap(float("nan"), None)
    mean, interval = found
    return Gap(mean, None if interval is None else (interval[0], interval[1]))


def best(lines: Sequence[Line]) -> Column | None:
    """Which has the highest R@1, and how far it is ahead of the others; None if all failed."""
    rows = summarised(lines)
    if not rows:
        return None
    top = max(rows, key=lambda row: row.recalls[0])
    behind = {row.name: ahead(top.hits, row.hits) for row in rows if row is not top}
    means = {row.name: row.recalls[0] for row in rows}
    return Column(Place("", "", None), 0, CHOSEN, means, behind)


def cells(lines: Sequence[Line]) -> list[list[str]]:
    """The rows of the table under `HEADS`, as a report and a terminal show them."""
    rows = []
    for row in summarised(lines):
        found = [row.name, *(f"{one:.1f}" for one in row.recalls)]
        if row.gain is None:
            rows.append(found + ["–"] * (len(HEADS) - len(found)))
            continue
        cost = [f"{row.ms:.1f}", f"{row.cpu_seconds:.1f}", f"{row.parameters:,}"]
        rows.append([*found, signed(row.gain), row.verdict or "–", row.weights, *cost])
    return rows


def signed(gain: Gap) -> str:
    """`+1.2 [-0.4, 2.8]`."""
    return f"+{gain.text}" if gain.mean >= 0 else gain.text


def protocol(lines: Sequence[Line]) -> str:
    """How the numbers were made, in a few sentences."""
    seeds = len({line["seed"] for line in lines})
    tokens = ", ".join(f"{m} {' '.join(pair)}" for m, pair in lines[0]["tokens"].items())
    return (
        "Test recall in percent, mean of both directions, over the recipe "
        f"{lines[0]['recipe']['name']}; means over {seeds} seed{'s' * (seeds > 1)}. Tokens: "
        f"{tokens}. All re-rankers have the same fused model, tokens and split. The network's "
        "weights, and the weight of its score, are chosen on validation (0: the order stays); test "
        "rows are measured once. Gains are on the same test queries, with a 95% bootstrap interval "
        "over seeds and linked groups of test items. ms is the time of a query if all tokens are "
        "there."
    )


def page(lines: Sequence[Line]) -> list[str]:
    """Lines of Markdown: how it was measured, the table, each direction, each seed, failures."""
    good = [line for line in lines if "error" not in line]
    found = ["# Re-rankers compared", "", protocol(lines), ""]
    column = best(lines)
    if column is None:
        return [*found, *failures(lines)]
    found += [*markdown(HEADS, cells(lines)), "", sentence(column), "", "## Directions", ""]
    found += [*markdown(*directions(good)), "", "## Seeds", ""]
    found += ["Intervals are within the split of the seed: a paired bootstrap, 95%.", ""]
    return [*found, *markdown(*by_seed(good)), "", *failures(lines)]


def sentence(column: Column) -> str:
    """The best one, as a sentence of its own."""
    return column.verdict[0].upper() + column.verdict[1:]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def directions(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """R@1, R@5 and R@10 of each direction, with the gain in R@1: heads and rows."""
    first = list({line["seed"]: line for line in lines}.values())
    heads, rows = ["direction", "re-ranker", "R@1", "R@5", "R@10", "R@1 gained"], []
    for way in first[0]["measured"]["before"]["directions"]:
        arrow = way.replace("->", " → ")
        shown = [f"{one:.1f}" for one in recalls(first, "before", way)]
        rows.append([arrow, BEFORE, *shown, "–"])
        for name in dict.fromkeys(line["reranker"] for line in lines):
            own = [line for line in lines if line["reranker"] == name]
            shown = [f"{one:.1f}" for one in recalls(own, "after", way)]
            gain = ahead(hits(own, "after", way), hits(own, "before", way))
            rows.append([arrow, name, *shown, signed(gain)])
    return heads, rows


def by_seed(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Each fit: R@1 before and after, the gain with its interval within the split, what was chosen:
    heads and rows."""
    rows = []
    for line in lines:
        measured = line["measured"]
        gain = measured["gain"]["mean"]
        found = Gap(gain["r1"], gain["r1_interval"])
        rows.append(
            [
                line["reranker"],
                str(line["seed"]),
                *(f"{measured[when]['mean_r1']:.1f}" for when in ("before", "after")),
                signed(found),
                line["network"]["name"],
                f"{line['weight']:g}",
                f"{measured['cost']['ms']:.1f}",
                f"{line['cpu_seconds']:.1f}",
            ]
        )
    heads = ["re-ranker", "seed", "R@1 before", "after", "gained", "network", "weight"]
    return [*heads, "ms a query", "CPU s"], rows


def failures(lines: Sequence[Line]) -> list[str]:
    """A sentence for each re-ranker that can't be fitted."""
    errors = {line["reranker"]: line["error"] for line in lines if "error" in line}
    return [f"{name} failed: {text}" for name, text in errors.items()]
