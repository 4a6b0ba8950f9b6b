"""The measurements in README and on the home page: a table and a chart of the kept results, and
the output of the first commands. docs/generate.py writes them between their marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.benchmark.advice import seconds_text
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN, read_lines
from fusemix_core.benchmark.page import mean_text
from fusemix_core.benchmark.summary import Entry, summarise
from fusemix_core.registry import Registry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "methods" / "results.jsonl"
PICTURES = ROOT / "docs" / "pictures"
SETS = {"openstax": "figures and alt texts", "chebi20": "molecules and descriptions"}
NAMES = {"linear CCA": "cca", "fusemix": "fusemix"}
"""Methods of the results whose recipe has another name."""
THEMES = {
    "light": {"text": "#1f2328", "bar": "#9aa7b8", "best": "#3f51b5"},
    "dark": {"text": "#e6edf3", "bar": "#5c6b80", "best": "#8c9eff"},
}

Rows = dict[str, dict[str, Entry]]
"""method → set → what was measured, the best on the first set first."""


def measured() -> Rows:
    """The kept results of the sets that README shows."""
    found: Rows = {}
    for entry in summarise(read_lines(RESULTS)):
        if entry.place.set in SETS and entry.lines:
            found.setdefault(entry.method, {})[entry.place.set] = entry
    first = next(iter(SETS))
    return dict(sorted(found.items(), key=lambda row: -row[1][first].interval(CHOSEN)[0]))


def table(registry: Registry) -> list[str]:
    """One row per method: R@1 and the seconds of a fit on each set."""
    rows = measured()
    papers = {spec.name: spec.paper for _, spec in registry.all_components("recipe")}
    heads = ["R@1 on test, %", *(f"{SETS[s]}, {pairs(rows, s):,} pairs" for s in SETS)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method, sets in rows.items():
        recipe = NAMES.get(method, method)
        name = f"[`{recipe}`]({papers[recipe]})" if papers.get(recipe) else f"`{recipe}`"
        cells = [name + (" (default)" if method == DEFAULT else "")]
        for wanted in SETS:
            entry = sets[wanted]
            recall = mean_text(entry.interval(CHOSEN))
            recall = f"**{recall}**" if entry is best(rows, wanted) else recall
            cells.append(f"{recall}; {seconds_text(entry.seconds)}")
        lines.append(f"| {' | '.join(cells)} |")
    tests = [tested(rows, s) for s in SETS]
    line = next(iter(best(rows, next(iter(SETS))).lines.values()))
    note = (
        "R@1 is the share of queries whose right partner was found first, here among "
        f"{tests[0]:,} and {tests[1]:,} test items: the mean of both directions, with a 95% "
        "interval over 3 splits. After it is the time of a fit from cached latents. Read it as an "
        "order of magnitude, because the two CPU cores did other work as well. A name with a link "
        "is a published method, implemented here. `fusemix`, `sail` and `freeze-align` are trained "
        f"by gradient and saw {line['budget']:,} pairs; they were designed for millions. `fusemix` "
        "has its published settings. The settings of `sail` and `freeze-align`, and the batch of "
        "256 pairs, were chosen on validation."
    )
    return [*lines, "", note]


def pairs(rows: Rows, wanted: str) -> int:
    """The pairs that the methods were fitted and chosen on."""
    return round(max(sets[wanted].pairs for sets in rows.values()))


def tested(rows: Rows, wanted: str) -> int:
    """The pairs of the test split."""
    line = next(iter(best(rows, wanted).lines.values()))
    return line["pairs"]["test"]


def best(rows: Rows, wanted: str) -> Entry:
    return max((sets[wanted] for sets in rows.values()), key=lambda e: e.interval(CHOSEN)[0])


def first_output() -> dict[str, list[str]]:
    """What the first commands print, as docs/pictures.py has kept it: all, or `recall` only."""
    whole = (PICTURES / "first.txt").read_text()
    parts = {"output": whole, "recall": whole.split("\n\n")[0]}
    return {name: ["```text", *text.splitlines(), "```"] for name, text in parts.items()}


def filled(text: str, regions: Mapping[str, Sequence[str]]) -> str:
    """The page with the lines of each region between its marks.

    Raises:
        ValueError: If the page lacks a mark.
    """
    for name, lines in regions.items():
        start, end = f"<!-- made: {name} -->\n", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"The page has no mark '{name}'.")
        body = "\n".join(lines)
        text = pattern.sub(lambda _, new=f"{start}\n{body}\n\n{end}": new, text)
    return text


def pages(registry: Registry) -> dict[str, str]:
    """README, the home page and the tutorial, by their path from docs/reference."""
    regions = {"results": table(registry), **first_output()}
    wanted = {
        "../../README.md": ("results", "output"),
        "../index.md": ("results",),
        "../tutorial.md": ("recall",),
    }
    return {
        path: filled(
            (ROOT / "docs" / "reference" / path).read_text(encoding="utf-8"),
            {name: regions[name] for name in names},
        )
        for path, names in wanted.items()
    }


def draw_chart() -> None:
    """The table as bars, for light and for dark pages."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = measured()
    for theme, colours in THEMES.items():
        style = {
            "svg.hashsalt": "fusemix",  # the same results, the same file
            **dict.fromkeys(("text.color", "ytick.color", "axes.titlecolor"), colours["text"]),
        }
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(8, 3.1), layout="constrained")
            for axes, wanted in zip(figure.subplots(1, 2), SETS, strict=True):
                _bars(axes, rows, wanted, colours)
            path = PICTURES / f"methods-{theme}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None})


def _bars(axes: Axes, rows: Rows, wanted: str, colours: Mapping[str, str]) -> None:
    order = sorted(rows, key=lambda m: rows[m][wanted].interval(CHOSEN)[0])
    entries = [rows[m][wanted] for m in order]
    values = [e.interval(CHOSEN)[0] for e in entries]
    top = best(rows, wanted)
    fill = [colours["best" if e is top else "bar"] for e in entries]
    axes.barh([NAMES.get(m, m) for m in order], values, color=fill, height=0.72)
    for y, (value, entry) in enumerate(zip(values, entries, strict=True)):
        text = f" {value:.1f}%  in {seconds_text(entry.seconds)}"
        axes.text(value, y, text, va="center", fontsize=8)
    axes.set_xlim(0, max(values) * 1.4)
    axes.set_title(f"{SETS[wanted]}, {pairs(rows, wanted):,} pairs: R@1", fontsize=9)
    axes.tick_params(left=False, labelsize=8.5)
    axes.xaxis.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
