"""Chooses the settings of each recipe that was tuned: the best on validation, over all sets.

    python -m benchmarks.tuning
    python -m benchmarks.tuning best

Reads the methods of `tuned.toml` and the lines in `results/tuned/results.jsonl`, and writes
`chosen.toml`, whose methods `scaling.toml` and `hard.toml` take. With `best` it reads `best.toml`
and its lines, and prints the mean of each method and which is chosen; `methods.toml` takes these.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusemix_core.benchmark.config import bench_config
from fusemix_core.benchmark.lines import NAME, read_lines
from fusemix_core.config import read_toml

HERE = Path(__file__).parent
CONFIG, RESULTS, CHOSEN = HERE / "tuned.toml", HERE / "results" / "tuned", HERE / "chosen.toml"
BEST = HERE / "best.toml", HERE / "results" / "best"
PUBLISHED = "fusemix"
"""Takes part as published, too; its tuned form has a name of its own."""

Line = Mapping[str, Any]


def mean_recall(line: Line) -> float:
    """Validation's mean of R@1, R@5 and R@10 by the scorer chosen, in percent."""
    found = line["validation"][line["scorer"]]
    return statistics.fmean(found[k] for k in ("r1", "r5", "r10"))


def scores(lines: Iterable[Line]) -> dict[str, dict[tuple[Any, ...], float]]:
    """Method → place (set, encoders, size, seed) → mean recall; the last line of a place counts."""
    found: dict[str, dict[tuple[Any, ...], float]] = defaultdict(dict)
    for line in lines:
        if "error" not in line:
            place = line["set"], line["label"], line["size"], line["seed"]
            found[line["method"]][place] = mean_recall(line)
    return dict(found)


def choose(methods: Sequence[Mapping[str, Any]], lines: Iterable[Line]) -> list[dict[str, Any]]:
    """The best method of each recipe: highest mean over all places, each of which counts alike.

    methods: tables `{label, recipe, set}`. Raises `ValueError` if one lacks a place that another
    has: they would not be compared on the same.
    """
    found = scores(lines)
    places = {place for own in found.values() for place in own}
    best: dict[str, tuple[float, Mapping[str, Any]]] = {}
    for method in methods:
        own = found.get(method["label"], {})
        if missing := places - set(own):
            raise ValueError(
                f"{method['label']} lacks {len(missing)} fits: {sorted(missing, key=str)}"
            )
        mean = statistics.fmean(own.values())
        if method["recipe"] not in best or mean > best[method["recipe"]][0]:
            best[method["recipe"]] = mean, method
    return [_taken(recipe, method) for recipe, (_, method) in best.items() if _own(recipe, method)]


def _own(recipe: str, method: Mapping[str, Any]) -> bool:
    """Whether it isn't the published form, which takes part anyway."""
    return recipe != PUBLISHED or bool(method.get("set"))


def _taken(recipe: str, method: Mapping[str, Any]) -> dict[str, Any]:
    label = f"{recipe}, tuned" if recipe == PUBLISHED else recipe
    return {"label": label, "recipe": recipe, "set": list(method.get("set", []))}


def as_toml(methods: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"    {{ label = {json.dumps(m['label'])}, recipe = {json.dumps(m['recipe'])}, "
        f"set = {json.dumps(m['set'])} }},"
        for m in methods
    ]
    about = "# Chosen on validation by `python -m benchmarks.tuning`; tried: benchmarks/tuned.toml."
    return "\n".join([about, "methods = [", *rows, "]", ""])


def tried(config: Path, results: Path) -> tuple[Sequence[Mapping[str, Any]], list[Line]]:
    """The methods of a config, and the lines that are of them."""
    values = read_toml(config)
    known = {m.label for m in bench_config(values).methods}  # checked
    return values["methods"], [n for n in read_lines(results / NAME) if n["method"] in known]


def means(lines: Iterable[Line]) -> list[str]:
    """A line of text for each method: its mean, and its score at each place."""
    return [
        f"{statistics.fmean(own.values()):.1f}  {label}: "
        + ", ".join(f"{place[0]} {value:.1f}" for place, value in own.items())
        for label, own in scores(lines).items()
    ]


def main() -> None:
    at_best = sys.argv[1:] == ["best"]
    methods, lines = tried(*BEST) if at_best else tried(CONFIG, RESULTS)
    chosen = choose(methods, lines)
    if at_best:
        print("\n".join(means(lines)))
    else:
        CHOSEN.write_text(as_toml(chosen), encoding="utf-8")
    for method in chosen:
        print(f"{method['label']}: {', '.join(method['set']) or 'as published'}")


if __name__ == "__main__":
    main()
