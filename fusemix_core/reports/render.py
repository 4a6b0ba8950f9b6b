"""Turns `ReportData` into one HTML file: no script, no address outside itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.reports import figures
from fusemix_core.reports.data import ReportData, Shown
from fusemix_core.runs.folder import write_text

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 160
"""The longer side of a thumbnail, in pixels."""

_MOST_TEXT = 260
_MOST_REJECTED = 20
_MOST_CLASSES = 200
_MOST_CONFUSIONS = 12


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write the report to `path`, whole or not at all, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_report(data))
    return path


def render_report(data: ReportData) -> str:
    """The report as HTML. The same data gives the same bytes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    here = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here.filters |= {"number": number, "recall": recall, "short": short, "thumbnail": thumbnail}
    style, _, _ = here.loader.get_source(here, "style.css")
    return here.get_template("report.html.j2").render(
        data=data,
        style=Markup(style),  # noqa: S704  our own file
        tables=recall_tables(data),
        headline=headline(data),
        groups=example_groups(data),
        panels=[(t, Markup(svg), legend) for t, svg, legend in curve_panels(data)],  # noqa: S704
        map=map_figure(data, Markup),
        histograms=[(t, Markup(svg)) for t, svg in histogram_panels(data)],  # noqa: S704
        confusions=confusions(data),
        most_rejected=_MOST_REJECTED,
        most_classes=_MOST_CLASSES,
        environment=list(flat(data.environment)),
    )


# -- what the sections are made of -----------------------------------------------------------------


def headline(data: ReportData) -> list[dict[str, Any]]:
    """The few numbers at the top: mean R@1 of the chosen scorer, then recalls@10 a direction."""
    found = data.retrieval.get(data.scorer)
    if not found:
        return []
    chance = np.mean([_chance(d) for d in found["directions"].values()])
    tiles = [
        {
            "label": "mean R@1",
            "value": found["mean_r1"],
            "interval": found["mean_r1_interval"],
            "note": f"chance {number(float(chance))}%",
        }
    ]
    for name, d in list(found["directions"].items())[:2]:
        tiles.append(
            {
                "label": f"R@10 {arrow(name)}",
                "value": d["r10"],
                "interval": d["r10_interval"],
                "note": f"among {number(d['gallery'])}",
            }
        )
    return tiles


def recall_tables(data: ReportData) -> list[dict[str, Any]]:
    """One table a scorer, the chosen one first; a row a direction."""
    names = sorted(data.retrieval, key=lambda name: name != data.scorer)
    return [
        {
            "scorer": name,
            "chosen": name == data.scorer,
            "rows": [
                {"name": arrow(direction), "chance": _chance(d), **d}
                for direction, d in data.retrieval[name]["directions"].items()
            ],
            "mean": data.retrieval[name],
        }
        for name in names
    ]


def _chance(direction: Mapping[str, Any]) -> float:
    """The expected R@1, in percent, of a random order."""
    return 100 * direction["positives"] / (direction["queries"] * direction["gallery"])


def example_groups(data: ReportData) -> list[tuple[str, list[Any], list[Any]]]:
    """(direction, right, wrong), in the order in which directions first occur."""
    groups: dict[str, tuple[list[Any], list[Any]]] = {}
    for example in data.examples:
        right, wrong = groups.setdefault(f"{example.query} → {example.target}", ([], []))
        (right if example.rank == 1 else wrong).append(example)
    return [(name, *both) for name, both in groups.items()]


def curve_panels(data: ReportData) -> Iterator[tuple[str, str, list[str]]]:
    """(title, svg, legend) of each panel that has a value."""
    for i, (title, series) in enumerate(data.history.items()):
        kept = {name: points for name, points in series.items() if len(points)}
        if kept:
            svg = figures.curves(list(kept.values()), data.best_step, f"Training curve {i + 1}")
            yield title, svg, list(kept)


def map_figure(data: ReportData, markup: type) -> dict[str, Any] | None:
    """The map's svg, its modalities and the variance it shows."""
    if data.links is None or not len(data.links) or not data.embeddings:
        return None
    points, lines, explained = figures.principal_map(data.embeddings, np.asarray(data.links))
    return {
        "svg": markup(figures.space_map(points, lines, "Map of the shared space")),
        "legend": list(data.embeddings),
        "shown": sum(len(p) for p in points),
        "explained": explained,
    }


def histogram_panels(data: ReportData) -> Iterator[tuple[str, str]]:
    """(pair of modalities, svg) of the cosines of pairs and non-pairs."""
    for i, (name, pair) in enumerate((data.geometry or {"pairs": {}})["pairs"].items()):
        h = pair["histogram"]
        alt = f"Histogram {i + 1} of the cosines of pairs and non-pairs"
        yield (
            name.replace("-", " – ", 1),
            figures.histogram(h["edges"], [h["pairs"], h["non_pairs"]], alt),
        )


def confusions(data: ReportData) -> list[tuple[str, str, int, int]]:
    """(true, predicted, count, items of the true class): the most frequent mistakes."""
    if data.zero_shot is None:
        return []
    names, counts = data.zero_shot["classes"], np.array(data.zero_shot["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    totals = counts.sum(axis=1)
    return [
        (names[i], names[j], int(wrong[i, j]), int(totals[i])) for i, j in places if wrong[i, j]
    ]


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


def arrow(direction: str) -> str:
    """`image->text` as people write it."""
    return direction.replace("->", " → ", 1)


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
    text = " ".join(text.split())
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1].rstrip() + "…"


def thumbnail(shown: Shown) -> str:
    """The image as a `data:` URL of a small JPEG, transparency on white."""
    assert shown.image is not None
    image = _on_white(shown.image)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _on_white(image: Image) -> Image:
    from PIL import Image as images

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = images.new("RGBA", image.size, "white")
        return images.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")
