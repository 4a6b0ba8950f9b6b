"""The table and the figures of `benchmarks.rerank`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rerank import CASES
from fusemix_core.evaluation.seeds import mean_interval

FIGURES = Path(__file__).parents[1] / "docs" / "methods"
PAIRS = (
    ("hard", "random"),
    ("focus", "hard"),
    ("bridge", "last"),
    ("static", "bridge"),
    ("adaptive", "static"),
    ("static-random", "static"),
    ("bridge-random", "last-random"),
    ("static-random", "last-random"),
    ("adaptive-random", "last-random"),
)
"""Cases whose difference is shown, by seed."""

Line = Mapping[str, Any]


def show(lines: Sequence[Line]) -> None:
    """Print the table, and draw the figures, of the fits that are kept."""
    found: dict[str, dict[int, Line]] = defaultdict(dict)
    for line in lines:
        found[line["case"]][line["seed"]] = line
    print(*table(found), sep="\n")
    if found:
        import matplotlib

        matplotlib.rcParams["svg.hashsalt"] = "fusemix"  # the same results, the same file
        draw_recall(found, FIGURES / "rerank-recall.svg")
    if "static" in found:
        draw_layers(found["static"], FIGURES / "rerank-layers.svg")


def table(found: Mapping[str, Mapping[int, Line]]) -> list[str]:
    """Markdown: R@1 before and after by case, then the differences between cases."""
    rows = [
        "| re-ranker | seeds | R@1 before | after | gain | R@5 gain | share | ms a query | CPU-s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (one for one in CASES if one in found):
        lines = list(found[name].values())
        before, after = (mean([line["r1"][k] for line in lines]) for k in (0, 1))
        shares = ", ".join(f"{line['alpha']:g}" for line in lines)
        rows.append(
            f"| {CASES[name].title} | {len(lines)} | {before:.1f} | {after:.1f} | "
            f"{said(gains(found[name]).values())} | {said(gains(found[name], 'r5').values())} | "
            f"{shares} | "
            f"{mean([line['ms'] for line in lines]):.1f} | "
            f"{mean([line['cpu_seconds'] for line in lines]):.0f} |"
        )
    differences = []
    for one, other in PAIRS:
        both = found.get(one, {}).keys() & found.get(other, {}).keys()
        if both:
            own, others = gains(found[one]), gains(found[other])
            apart = [own[seed] - others[seed] for seed in both]
            titles = f"{CASES[one].title}: {CASES[other].title}"
            differences.append(f"| {titles} | {len(both)} | {said(apart)} |")
    if differences:
        rows += ["", "| gain of one less that of the other | seeds | points |", "|---|---|---|"]
    return rows + differences


def gains(lines: Mapping[int, Line], key: str = "r1") -> dict[int, float]:
    """Seed → points of R@1, or R@5, that re-ranking gained."""
    return {seed: line[key][1] - line[key][0] for seed, line in lines.items()}


def said(values: Any) -> str:
    """A mean with its 95% Student interval, if there are several values."""
    middle, half = mean_interval(list(values))
    return f"{middle:+.2f}" + ("" if half is None else f" ± {half:.2f}")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def draw_recall(found: Mapping[str, Mapping[int, Line]], path: Path) -> None:
    """The points of R@1 that each case gained, a dot for each seed."""
    from matplotlib.figure import Figure

    names = [name for name in CASES if name in found]
    figure = Figure(figsize=(7, 0.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        values = list(gains(found[name]).values())
        middle, half = mean_interval(values)
        axes.scatter(values, [place] * len(values), s=12, color="0.6", zorder=2)
        axes.errorbar(middle, place, xerr=half or 0, fmt="o", color="tab:blue", zorder=3)
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_yticks(range(len(names)), [CASES[name].title for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("points of R@1 gained over the default recipe, test split")
    figure.savefig(path, metadata={"Date": None})


def draw_layers(lines: Mapping[int, Line], path: Path) -> None:
    """The weights of each encoder's layers by the static manager; mean of the seeds."""
    from matplotlib.figure import Figure

    sides = next(iter(lines.values()))["layers"]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for axes, side in zip(figure.subplots(1, len(sides), sharey=True), sides, strict=True):
        for depth in range(len(sides[side])):
            each = [line["layers"][side][depth] for line in lines.values()]
            weights = [mean(column) for column in zip(*each, strict=True)]
            at = range(1 - len(weights), 1)
            axes.plot(at, weights, marker="o", label=f"cross-modal layer {depth + 1}")
        axes.axhline(1 / len(weights), color="0.6", linewidth=1, linestyle=":")
        axes.set_title(side)
        axes.set_xlabel("encoder layer, 0 the last")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("weight")
    figure.savefig(path, metadata={"Date": None})
