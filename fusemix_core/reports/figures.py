"""Figures as small inline SVG whose colours come from the page, so that they follow light and dark.

Legends and titles are HTML, beside the figure. A figure that holds more than shapes and texts is
refused: a plugin may have drawn it.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from fusemix_core.errors import ContractError
from fusemix_core.evaluation.drawing import COLOURS
from fusemix_core.reports.points import Show, drawn_points
from fusemix_core.sections import Figure, Points, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _RULE = "#010101", "#020202"
_COLOURS = [f"#0300{i:02d}" for i in range(COLOURS)]
_VARIABLES = {_INK: "var(--muted)", _RULE: "var(--rule)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(_COLOURS)
}
_SHAPES = {
    *("svg", "g", "defs", "path", "use", "rect", "text", "tspan", "clipPath", "image", "style"),
    *("circle", "ellipse", "line", "polygon", "polyline", "linearGradient", "stop", "pattern"),
    *("metadata", "title"),
}
"""Elements that a figure may contain."""

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
            colour = f"C{i % COLOURS}"
            axes.plot(*values.T, color=colour, marker=marker, markersize=3, linewidth=1.6)
        if best_step is not None:
            axes.axvline(best_step, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlabel("step")
        axes.margins(x=0.02)

    return _svg(draw, alt)


def markup(figure: Figure, name: str, show: Show | None = None) -> str:
    """A figure as an element of the page: an `<svg>`, the `<img>` of a PNG, or a map.

    Args:
        figure: the function that draws it may be a plugin's; nothing but shapes and texts of it
            gets into the page.
        name: sets the ids inside, which must differ between the figures of a page.
        show: names the items of a map.

    Raises:
        ContractError: it contains a link, a script, or bytes that are not an image.
        Exception: whatever the drawing raises.
    """
    if isinstance(figure.drawing, str):
        return figure.drawing
    if isinstance(figure.drawing, bytes):
        return _png(figure.drawing, figure.alt)
    if isinstance(figure.drawing, Points):
        return drawn_points(figure.drawing, figure.alt or name, show)
    return _svg(figure.drawing, name, figure.height, figure.alt)


def drawn(section: Section, name: str, show: Show | None = None) -> Section:
    """The section with its figures drawn. Raises as `markup`; `name` is that of the evaluator."""
    figures = [
        replace(figure, drawing=markup(figure, f"{name} {section.title} {i}", show))
        for i, figure in enumerate(section.figures)
    ]
    return replace(section, figures=figures)


def _png(image: bytes, alt: str) -> str:
    """An `<img>` of the pixels of a PNG; what else its file contains is left out."""
    from PIL import Image, UnidentifiedImageError

    try:
        decoded = Image.open(io.BytesIO(image), formats=["PNG"]).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ContractError("A figure", "the bytes of a PNG", f"{error}") from error
    out = io.BytesIO()
    decoded.save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def _svg(draw: Callable[[Axes], Any], name: str, height: int = _HEIGHT, alt: str = "") -> str:
    """The axes that `draw` fills, as an `<svg>` element."""
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"fusemix {name}",
        "axes.prop_cycle": cycler(color=_COLOURS),
        "text.parse_math": False,  # a text of the data may hold a $
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
    return _inline(out.getvalue(), alt or name)


def _check_harmless(svg: str) -> None:
    """Raise `ContractError` unless an SVG file of matplotlib contains shapes and texts only."""
    for element in ElementTree.fromstring(svg).iter():  # noqa: S314  matplotlib's own output
        tag, attributes = element.tag.rpartition("}")[2], element.attrib
        if not element.tag.startswith("{http://www.w3.org/2000/svg}"):
            continue  # of the metadata, which is left out
        if tag not in _SHAPES:
            raise ContractError("A figure", "shapes and texts", f"the element <{tag}>")
        for key, value in attributes.items():
            key = key.rpartition("}")[2].lower()
            outside = key == "href" and not value.startswith(("#", "data:image/png;base64,"))
            outside = outside or "url(" in value.replace("url(#", "")
            if outside or key.startswith("on"):
                raise ContractError("A figure", "nothing but a drawing", f"{key}={value!r}")


def _inline(svg: str, alt: str) -> str:
    """matplotlib's SVG file as an element of a page, without fonts and colours of its own."""
    _check_harmless(svg)
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
    opening = f'<svg role="img" aria-label="{escape(alt)}" {box[0]}>'
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
