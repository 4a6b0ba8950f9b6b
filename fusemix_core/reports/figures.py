"""Figures as small inline SVG whose colours come from the page, so that they follow light and dark.

Legends and titles are HTML, beside the figure: nothing that a stranger's data names is drawn here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = 6
"""Colours there are for series and modalities; further ones start again."""

_INK, _RULE = "#010101", "#020202"
_COLOURS = [f"#0300{i:02d}" for i in range(SERIES)]
_VARIABLES = {_INK: "var(--muted)", _RULE: "var(--rule)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(_COLOURS)
}
_MOST_POINTS = 300
_WIDTH, _HEIGHT = 400, 260  # CSS pixels; a phone shows them as they are, at 10 px text


def curves(
    series: Sequence[Sequence[tuple[float, float]]], best_step: float | None, alt: str
) -> str:
    """Value against step, one line a series, in the order of the colours."""

    def draw(axes: Axes) -> None:
        for i, points in enumerate(series):
            values = np.array([p for p in points if np.isfinite(p).all()], dtype=float)
            values = values.reshape(-1, 2)
            if len(values) > _MOST_POINTS:
                keep = np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int)
                values = values[keep]
            marker = "o" if len(values) <= 30 else ""
            axes.plot(*values.T, color=_colour(i), marker=marker, markersize=3, linewidth=1.6)
        if best_step is not None:
            axes.axvline(best_step, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlabel("step")
        axes.margins(x=0.02)

    return _svg(draw, alt)


def histogram(edges: Sequence[float], groups: Sequence[Sequence[int]], alt: str) -> str:
    """Share of each group's counts by bin, filled steps, cropped to the bins in use."""
    edges_of, counts = np.asarray(edges, float), np.asarray(groups, float)
    used = np.nonzero(counts.sum(axis=0))[0]
    first, last = (used[0], used[-1] + 1) if len(used) else (0, counts.shape[1])

    def draw(axes: Axes) -> None:
        for i, group in enumerate(counts):
            shares = 100 * group / max(group.sum(), 1)
            axes.stairs(
                shares[first:last],
                edges_of[first : last + 1],
                fill=True,
                facecolor=(_colour(i), 0.25),
                edgecolor=_colour(i),
                linewidth=1.4,
            )
        axes.set_xlabel("cosine")
        axes.set_ylabel("% per bin")

    return _svg(draw, alt)


def space_map(points: Sequence[np.ndarray], lines: np.ndarray, alt: str) -> str:
    """Scatter of `[n_k, 2]` points of each modality; lines `[L, 2, 2]` join partners."""

    def draw(axes: Axes) -> None:
        if len(lines):
            gaps = np.full((len(lines), 1, 2), np.nan)
            path = np.concatenate([lines, gaps], axis=1).reshape(-1, 2)
            axes.plot(*path.T, color=_INK, alpha=0.25, linewidth=0.6)
        for i, rows in enumerate(points):
            axes.plot(
                *rows.T,
                linestyle="",
                marker="os^Dvp"[i % SERIES],
                markersize=3.4,
                color=_colour(i),
                alpha=0.8,
                markeredgewidth=0,
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")

    return _svg(draw, alt, height=340)


def principal_map(
    embeddings: Mapping[str, np.ndarray], links: np.ndarray, most: int = 400, seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray, list[float]]:
    """A plane through the space: points of each modality, lines between partners, variance in %.

    Takes at most `most` rows of the links `[m, K]`, drawn with `seed`; the plane is that of the
    first two principal components of their items of all modalities together.
    """
    if len(links) > most:
        rows = np.random.default_rng(seed).choice(len(links), most, replace=False)
        links = links[np.sort(rows)]
    ids = [np.unique(c[c >= 0]) for c in links.T]
    items = [np.asarray(e, float)[i] for e, i in zip(embeddings.values(), ids, strict=True)]
    stacked = np.nan_to_num(np.concatenate(items))
    centred = stacked - stacked.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.pad(axes[:2], ((0, max(0, 2 - len(axes))), (0, 0)))
    # The sign of a component is arbitrary: its largest entry is made positive.
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[[0, 1], largest] < 0, -1, 1)[:, None]
    flat = centred @ axes.T
    points = np.split(flat, np.cumsum([len(i) for i in ids])[:-1])
    lines = []
    for row in links:
        ends = [
            p[np.searchsorted(i, x)] for p, i, x in zip(points, ids, row, strict=True) if x >= 0
        ]
        lines += zip(ends, ends[1:], strict=False)
    total = max(float((lengths**2).sum()), 1e-30)
    explained = [100 * float(length**2) / total for length in lengths[:2]]
    return points, np.array(lines).reshape(-1, 2, 2), explained


def _colour(i: int) -> str:
    return _COLOURS[i % SERIES]


def _svg(draw: Callable[[Axes], Any], alt: str, height: int = _HEIGHT) -> str:
    """The axes that `draw` fills, as an `<svg>` element. `alt` is our own text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"fusemix {alt}",
        "font.size": 7.5,  # points, at 96 px an inch: 10 px
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.edgecolor": _RULE,
        "grid.color": _RULE,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "path.simplify": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(_WIDTH / 96, height / 96), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        out = io.StringIO()
        empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", transparent=True, metadata=empty)
    return _inline(out.getvalue(), alt)


def _inline(svg: str, alt: str) -> str:
    """matplotlib's SVG file as an element of a page, without fonts and colours of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"^\s+", "", svg, flags=re.M)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    return re.sub(r"<svg[^>]*>", f'<svg role="img" aria-label="{alt}" {box[0]}>', svg, count=1)
