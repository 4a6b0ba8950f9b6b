"""The tables of docs/methods/arl.md, from results/arl.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.parts_of_pages import put
from fusemix_core.evaluation.seeds import mean_interval

RESULTS = Path(__file__).parents[1] / "results" / "arl.json"
PAGE = Path(__file__).parents[2] / "docs" / "methods" / "arl.md"
NAMES = {
    "latents": "latents of the encoder, no alignment",
    "infonce": "`infonce`",
    "none": "`arl`, `graph=none`: entities as labels",
    "shuffled": "`arl`, shuffled graph",
    "graph": "`arl`",
}
MEASURES = {"recall": "R@10, %", "auroc": "entity AUROC, %"}
PAIRS = (("graph", "infonce"), ("graph", "shuffled"), ("graph", "none"), ("none", "infonce"))


def write() -> None:
    """Write the tables into the page."""
    put(PAGE, "measured", tables(json.loads(RESULTS.read_text())["seeds"]))


def tables(seeds: list[dict[str, Any]]) -> str:
    """Means of each arm, then differences with intervals."""
    counts = list(seeds[0]["pairs"])
    columns = [(count, measure) for measure in MEASURES for count in counts]
    head = [f"{MEASURES[measure]}, {count} pairs" for count, measure in columns]
    lines = [f"| | {' | '.join(head)} |", "|" + "---|" * (1 + len(head))]
    for arm, name in NAMES.items():
        cells = [_cell(seeds, arm, *column) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| difference | {' | '.join(head)} |", "|" + "---|" * (1 + len(head))]
    for first, second in PAIRS:
        cells = []
        for column in columns:
            both = zip(_values(seeds, first, *column), _values(seeds, second, *column), strict=True)
            mean, half = mean_interval([a - b for a, b in both])
            cells.append(f"{mean:+.1f} ± {half:.1f}")
        names = [NAMES[arm].split(":")[0] for arm in (first, second)]
        lines.append(f"| {names[0]} − {names[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _values(seeds: list[dict[str, Any]], arm: str, count: str, measure: str) -> list[float]:
    return [seed["pairs"][count][arm].get(measure) for seed in seeds]


def _cell(seeds: list[dict[str, Any]], arm: str, count: str, measure: str) -> str:
    values = _values(seeds, arm, count, measure)
    return "" if None in values else f"{mean_interval(values)[0]:.1f}"
