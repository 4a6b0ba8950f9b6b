"""The table and the picture of docs/methods/bev.md, from results/bev.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts_of_pages import put
from fusemix_core.evaluation.seeds import mean_interval

RESULTS = Path(__file__).parents[1] / "results" / "bev.json"
DOCS = Path(__file__).parents[2] / "docs"
NAMES = {
    "camera": "camera only",
    "ultrasonic": "ultrasonic only",
    "plain": "concatenated (`none`)",
    "fixed": "`fixed`: same size, same field of view",
    "content": "`content`",
    "both": "`content`, `gate=both`",
}
PAIRS = (
    ("content", "camera"),
    ("content", "ultrasonic"),
    ("content", "plain"),
    ("content", "fixed"),
    ("both", "fixed"),
)
"""The differences that are shown."""
_COLOURS = {"camera": "C7", "ultrasonic": "C8", "plain": "C1", "fixed": "C2", "content": "C0"}


def write() -> None:
    """Write the tables into the page, and its picture."""
    results = json.loads(RESULTS.read_text())
    put(DOCS / "methods" / "bev.md", "measured", tables(results["seeds"]))
    picture(results["seeds"]).savefig(DOCS / "pictures" / "bev.webp", dpi=110)


def values(seeds: list[dict[str, Any]], arm: str, condition: str) -> np.ndarray:
    """IoU in percent, of each seed."""
    return 100 * np.array([seed[arm]["iou"][condition] for seed in seeds])


def tables(seeds: list[dict[str, Any]]) -> str:
    """IoU of each arm in each condition, then differences with intervals."""
    conditions = list(seeds[0]["content"]["iou"])
    head = ["IoU, %", "weights", *conditions]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for arm, name in NAMES.items():
        cells = [f"{values(seeds, arm, one).mean():.1f}" for one in conditions]
        lines.append(f"| {name} | {seeds[0][arm]['weights']:,} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| difference | {' | '.join(conditions)} |",
        "|" + "---|" * (1 + len(conditions)),
    ]
    for first, second in PAIRS:
        cells = []
        for one in conditions:
            gap = values(seeds, first, one) - values(seeds, second, one)
            mean, half = mean_interval(gap.tolist())
            cells.append(f"{mean:+.1f} ± {half:.1f}")
        plain = [NAMES[arm].split(":")[0] for arm in (first, second)]
        lines.append(f"| {plain[0]} − {plain[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(seeds: list[dict[str, Any]]) -> Any:
    """The curve over the shift, and one scene as both sensors and the truth show it."""
    from fusemix_bev.scenes import scenes
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    curve, bars = above.subplots(1, 2, width_ratios=(1.4, 1))
    shifts = [one for one in seeds[0]["content"]["iou"] if one.startswith("shift")]
    for arm, colour in _COLOURS.items():
        each = [mean_interval(values(seeds, arm, one).tolist()) for one in shifts]
        means, halves = (np.array(part) for part in zip(*each, strict=True))
        label = NAMES[arm].split(":")[0].replace("`", "")
        curve.plot(range(len(shifts)), means, "o-", color=colour, label=label)
        low, high = means - halves, means + halves
        curve.fill_between(range(len(shifts)), low, high, color=colour, alpha=0.15)
    curve.set(xlabel="shift of the ultrasonic map, cells", ylabel="IoU, %", ylim=(0, None))
    curve.set_xticks(range(len(shifts)))
    curve.legend(fontsize="small", loc="lower left")
    lights = [one for one in seeds[0]["content"]["iou"] if not one.startswith("shift")]
    for k, (arm, colour) in enumerate(_COLOURS.items()):
        means = [values(seeds, arm, one).mean() for one in lights]
        bars.bar(np.arange(len(lights)) + 0.16 * (k - 2), means, 0.15, color=colour)
    bars.set_xticks(range(len(lights)), lights)
    bars.set(ylabel="IoU, %, shifts from 0 to 4")
    made = scenes(1, 12, size=20, shift=3, light="day")
    panels = {
        "camera": made.camera[0, ..., 0],
        "ultrasonic, 3 cells off": made.ultrasonic[0, ..., 0],
        "occupied": made.occupied[0],
    }
    for axes, (title, values_) in zip(below.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(values_, cmap="magma")
        axes.set_title(title, fontsize="medium")
        axes.axis("off")
    return figure
