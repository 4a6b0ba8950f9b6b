"""Turns `ReportData` into one HTML file: no address outside itself, no script but that of maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusemix_core.reports import figures
from fusemix_core.reports.data import Example, ReportData, Shown
from fusemix_core.reports.points import policy, script
from fusemix_core.runs.folder import write_text
from fusemix_core.sections import Section, Share

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from PIL.Image import Image

THUMBNAIL, SMALL = 160, 72
"""The longer side of a thumbnail in pixels, and of one on a map."""

_MOST_TEXT = 260
_MOST_REJECTED = 20


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write the report to `path`, whole or not at all, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_report(data))
    return path


def render_report(data: ReportData) -> str:
    """The report as HTML. The same data gives the same bytes."""
    from markupsafe import Markup

    here = templates()
    first = [shown(s, Markup) for s in data.sections if s.headline]
    last = [shown(s, Markup) for s in data.sections if not s.headline]
    maps = any('class="map"' in element for p in (*first, *last) for _, element in p["figures"])
    return here.get_template("report.html.j2").render(
        data=data,
        style=style_sheet(here),
        first=first,
        last=last,
        script=Markup(script()) if maps else "",  # noqa: S704  our own file
        policy=Markup(f"; {policy()}") if maps else "",  # noqa: S704
        headline=[tile for s in data.sections for tile in s.headline],
        groups=example_groups(data.examples),
        sure=example_groups(data.sure),
        panels=[(t, Markup(svg), legend) for t, svg, legend in curve_panels(data)],  # noqa: S704
        most_rejected=_MOST_REJECTED,
        environment=list(flat(data.environment)),
    )


@cache
def templates() -> Environment:
    """Where our pages' templates are, with the filters that they share; each is compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    here = Environment(
        loader=PackageLoader("fusemix_core.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here.filters |= {"number": number, "recall": recall, "short": short, "thumbnail": thumbnail}
    here.tests |= {"share": lambda value: isinstance(value, Share)}
    here.tests |= {"text": lambda value: isinstance(value, str)}
    return here


def style_sheet(here: Environment) -> Markup:
    """`style.css`, to stand inside a page."""
    from markupsafe import Markup

    assert here.loader is not None  # see `templates`
    style, _, _ = here.loader.get_source(here, "style.css")
    return Markup(style)  # noqa: S704  our own file


# -- what the sections are made of -----------------------------------------------------------------


def shown(section: Section, markup: type) -> dict[str, Any]:
    """A section, and (figure, element) of its figures."""
    names = (f"{section.title} {i}" for i in range(len(section.figures)))
    elements = [(f, markup(figures.markup(f, n))) for f, n in zip(section.figures, names)]  # noqa: B905
    return {"section": section, "figures": elements}


def example_groups(examples: Sequence[Example]) -> list[tuple[str, list[Any], list[Any]]]:
    """(direction, right, wrong), in the order in which directions first occur."""
    groups: dict[str, tuple[list[Any], list[Any]]] = {}
    for example in examples:
        right, wrong = groups.setdefault(f"{example.query} → {example.target}", ([], []))
        (right if example.rank == 1 else wrong).append(example)
    return [(name, *both) for name, both in groups.items()]


def curve_panels(data: ReportData) -> Iterator[tuple[str, str, list[str]]]:
    """(title, svg, legend) of each panel in which something moves: a closed form is one point."""
    for i, (title, series) in enumerate(data.history.items()):
        kept = {name: points for name, points in series.items() if len(points)}
        if max(map(len, kept.values()), default=0) > 1:
            svg = figures.curves(list(kept.values()), data.best_step, f"Training curve {i + 1}")
            yield title, svg, list(kept)


def flat(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """Nested dicts as (dotted name, text), without what is None or empty."""
    for key, value in values.items():
        name = f"{at}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name} · ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value:
                yield name, ", ".join(map(str, value))
        elif value is not None and value != "":
            yield name, str(value)


# -- how values are written ------------------------------------------------------------------------


def number(value: Any) -> str:
    """Thousands apart; about three significant digits of a fraction; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, str | bool):
        return str(value)
    if float(value).is_integer():
        text = f"{int(value):,}"
    elif abs(value) >= 10:
        text = f"{value:,.1f}"
    else:
        text = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def recall(value: float | None) -> str:
    """A percentage to one place."""
    return "–" if value is None else f"{value:.1f}"


def short(text: str) -> str:
    """Text that fits a card."""
    return clipped(text, _MOST_TEXT)


def clipped(text: str, most: int = 140) -> str:
    """The start of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def thumbnail(shown: Shown, side: int = THUMBNAIL) -> str:
    """The image as a `data:` URL of a small JPEG, transparency on white."""
    assert shown.image is not None
    image = _on_white(shown.image)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80 if side >= THUMBNAIL else 60, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _on_white(image: Image) -> Image:
    from PIL import Image as images

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = images.new("RGBA", image.size, "white")
        return images.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")
