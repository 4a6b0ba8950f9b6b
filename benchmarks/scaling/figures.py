"""The figures of a set: R@1 against pairs, and against seconds. The default is bold, closed forms
are solid, methods trained by gradient dashed; every curve has its name at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scaling.cells import CLOSED, GRADIENT, Setting, family_of
from benchmarks.scaling.speed import has_course, held
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN
from fusemix_core.benchmark.summary import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOLID = ("#1f5fa8", "#2a9d8f", "#5aa02c", "#17becf", "#7a8b00", "#3b3b98", "#74a9cf", "#0b6e4f")
DASHED = ("#d1495b", "#e07a1f", "#8e44ad", "#c71585", "#a0522d", "#d4a017", "#e377c2", "#8c1c13")

Point = tuple[float, float, float]
"""x, y, half-width of the interval of y."""


def styles(settings: Sequence[Setting]) -> dict[str, dict[str, Any]]:
    """How each method is drawn, alike in all figures."""
    families = {n: family_of(e) for s in settings for at in s.sizes for n, e in at.entries.items()}
    found: dict[str, dict[str, Any]] = {DEFAULT: {"color": "black", "linewidth": 2.6, "zorder": 9}}
    for family, colours, line in ((CLOSED, SOLID, "-"), (GRADIENT, DASHED, (0, (4, 1.5)))):
        names = sorted(n for n, own in families.items() if own == family)
        for number, name in enumerate(names):
            found[name] = {
                "color": colours[number % len(colours)],
                "linestyle": line,
                "linewidth": 1.3,
                "marker": "os^Dv"[number // len(colours) % 5],
            }
    return found


def draw_pairs(setting: Setting, style: Mapping[str, Any], path: Path) -> None:
    """Test R@1 by the chosen scorer against the number of pairs, with 95% intervals."""

    def curves(axes: Axes) -> None:
        points = {m: [_point(e, n) for n, e in setting.entries(m)] for m in setting.methods}
        _plot(axes, points, style)
        axes.set(xlabel="pairs", ylabel="test R@1, %")

    _save(path, [curves])


def draw_seconds(setting: Setting, style: Mapping[str, Any], path: Path) -> None:
    """Test R@1 against the seconds of a fit, one point for each size; below it, where there are
    trajectories, validation R@1 in the course of the fits at the largest size."""

    def whole(axes: Axes) -> None:
        points = {
            m: [_point(e, max(e.seconds, 1e-3)) for _, e in setting.entries(m)]
            for m in setting.methods
        }
        _plot(axes, points, style)
        axes.set(xlabel="seconds of a fit, one point per size", ylabel="test R@1, %")

    largest = setting.sizes[-1]
    courses = {n: c for n, e in largest.entries.items() if (c := course(e))}

    def course_axes(axes: Axes) -> None:
        points = {n: [(s, r1, 0.0) for s, r1 in c] for n, c in courses.items()}
        _plot(axes, points, style, steps=True)
        axes.set(
            xlabel=f"seconds into a fit of {largest.pairs:,} pairs, first seed",
            ylabel="validation R@1, %",
        )

    _save(path, [whole, course_axes] if courses else [whole])


def course(entry: Entry) -> list[tuple[float, float]]:
    """(seconds, validation R@1) of the first seed's fit, to its end; empty without a trajectory."""
    line = entry.lines[min(entry.lines)]
    if not has_course(line):
        return []
    points = held(line)
    return [*points, (max(line["seconds"], points[-1][0]), points[-1][1])]


def _point(entry: Entry, x: float) -> Point:
    mean, half = entry.interval(CHOSEN)
    return x, mean, half or 0.0


def _plot(
    axes: Axes,
    points: Mapping[str, Sequence[Point]],
    style: Mapping[str, Any],
    steps: bool = False,
) -> None:
    """Curves with intervals, and the name of each at its end."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    for method, own in points.items():
        xs, ys, halves = zip(*own, strict=True)
        look = {"marker": "o", "markersize": 3.2, **style[method]}
        if steps:
            axes.step(xs, ys, where="post", **{**look, "marker": "" if len(own) > 2 else "o"})
        else:
            axes.errorbar(xs, ys, halves, elinewidth=0.7, capsize=1.5, capthick=0.7, **look)
    every = [x for own in points.values() for x, *_ in own]
    if min(every) == max(every):  # no range to take the limits from
        axes.set_xlim(every[0] / 2, every[0] * 2)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    ends = {m: own[-1][:2] for m, own in points.items()}
    _names(axes, ends, style)


def _names(axes: Axes, ends: Mapping[str, tuple[float, float]], style: Mapping[str, Any]) -> None:
    """The names beside the axes, as near the ends of their curves as they don't overlap, with a
    line from each end to its name."""
    low, high = axes.get_ylim()
    high = max(high, max(y for _, y in ends.values()) * 1.1)
    axes.set_ylim(low, high)
    gap = (high - low) * 0.052
    order = sorted(ends, key=lambda m: ends[m][1])
    for method, at in zip(order, spread([ends[m][1] for m in order], gap, low), strict=True):
        look = style[method]
        axes.annotate(
            method,
            xy=ends[method],
            xytext=(1.03, (at - low) / (high - low)),
            textcoords="axes fraction",
            color=look["color"],
            fontsize=8,
            fontweight="bold" if method == DEFAULT else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": look["color"],
                "linewidth": 0.5,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def spread(values: Sequence[float], gap: float, low: float) -> list[float]:
    """The ascending values, moved as little as keeps them `gap` apart and above `low`: those that
    would overlap form a block about their mean."""
    blocks: list[tuple[float, int]] = []  # the mean of a block, how many it has
    for value in values:
        mean, count = max(value, low + gap / 2), 1
        while blocks and mean - blocks[-1][0] < gap * (count + blocks[-1][1]) / 2:
            before, number = blocks.pop()
            mean, count = (before * number + mean * count) / (number + count), count + number
            mean = max(mean, low + gap * count / 2)
        blocks.append((mean, count))
    return [mean + gap * (i - (count - 1) / 2) for mean, count in blocks for i in range(count)]


def _save(path: Path, plots: Sequence[Callable[[Axes], None]]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "fusemix"}):  # the same figures, the same file
        figure = Figure(figsize=(7.5, 4.8 * len(plots)), layout="constrained")
        rows = figure.subplots(len(plots), 1, squeeze=False)
        for (axes,), plot in zip(rows, plots, strict=True):
            plot(axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=None if path.suffix == ".png" else {"Date": None})
