"""A map of items as inline SVG: each point says what it is, by pointer, arrow keys or its title.

`points.js`, the only script of a report, shows the item under the pointer and changes colours. The
page allows it by its digest; without it the titles and the first colours remain.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Protocol

from fusemix_core.evaluation.drawing import COLOURS
from fusemix_core.sections import Points

WIDTH, HEIGHT, MARGIN = 960, 560, 16
_SIZE = 5
_OTHER = "other"


@dataclass(frozen=True)
class Named:
    """A point as a reader sees it: where it was read, its text, and a `data:` URL of an image."""

    place: str
    text: str = ""
    image: str = ""


class Show(Protocol):
    """Modality and number of an item in the dataset → the item as a map names it. `private`: the
    map gets its first colours only."""

    private: bool

    def __call__(self, modality: str, number: int) -> Named: ...


class _Numbers:
    """Items by their numbers."""

    private = False

    def __call__(self, modality: str, number: int) -> Named:
        return Named(f"{modality} {number}")


def script() -> str:
    """Our script."""
    return (files("fusemix_core.reports") / "points.js").read_text(encoding="utf-8")


def policy() -> str:
    """What a page's security policy says of scripts, so that it runs ours and no other."""
    digest = hashlib.sha256(f"\n{script()}\n".encode()).digest()
    return f"script-src 'sha256-{base64.b64encode(digest).decode()}'"


def drawn_points(points: Points, alt: str, show: Show | None = None) -> str:
    """A map as an element of the page.

    Args:
        points: what to draw.
        alt: what the map shows, for people who don't see it.
        show: names items; without it they have their numbers only.
    """
    show, at = show or _Numbers(), _placed(points.at)
    shown = list(points.colours.items())[: 1 if show.private else None]
    colours = {title: _numbered(labels) for title, labels in shown}
    first = next(iter(colours.values()))
    shapes = {m: i for i, m in enumerate(dict.fromkeys(m for m, _ in points.items))}
    lines = [
        f'<path d="M{at[i][0]} {at[i][1]}L{at[j][0]} {at[j][1]}" data-ends="{i} {j}"/>'
        for i, j in points.lines
    ]
    marks = []
    for i, (place, (modality, number)) in enumerate(zip(at, points.items, strict=True)):
        facts = " · ".join(f"{t}: {points.colours[t][i]}" for t in list(colours)[1:])
        look = place, shapes[modality], first.of[i]
        marks.append(_mark(*look, modality, show(modality, number), facts))
    options = "".join(f"<option>{escape(title)}</option>" for title in colours)
    data = json.dumps({title: {"names": c.names, "of": c.of} for title, c in colours.items()})
    how = "Arrow keys go from item to item."
    return (
        f'<div class="map" tabindex="0" role="group" aria-label="{escape(f"{alt}. {how}")}" '
        f'data-colours="{escape(data)}">'
        f'<p class="legend"><label hidden>Colours <select>{options}</select></label>'
        f"<span>{_legend(first.names)}</span></p>"
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<g class="lines">{"".join(lines)}</g>{"".join(marks)}</svg>'
        '<div class="tip" role="status" hidden></div></div>'
    )


@dataclass(frozen=True)
class _Colours:
    """names: of the colours, the last may be for all others. of: the colour of each point."""

    names: list[str]
    of: list[int]


def _numbered(labels: Sequence[str]) -> _Colours:
    """Colours for the labels: as they occur, or if there are too many for the most frequent."""
    names = list(dict.fromkeys(labels))
    if len(names) > COLOURS:
        names = [name for name, _ in Counter(labels).most_common(COLOURS - 1)]
        number = {name: i for i, name in enumerate(names)}
        return _Colours([*names, _OTHER], [number.get(label, COLOURS - 1) for label in labels])
    number = {name: i for i, name in enumerate(names)}
    return _Colours(names, [number[label] for label in labels])


def _placed(at: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a plane in pixels: one scale for both axes, in the middle of the map."""
    if not at:
        return []
    xs, ys = zip(*at, strict=True)
    spans = max(xs) - min(xs), max(ys) - min(ys)
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    scale = min(wide / max(spans[0], 1e-12), high / max(spans[1], 1e-12))
    left, top = (WIDTH - scale * spans[0]) / 2, (HEIGHT - scale * spans[1]) / 2
    return [
        (round(left + scale * (x - min(xs)), 1), round(top + scale * (max(ys) - y), 1))
        for x, y in at
    ]


def _mark(
    at: tuple[float, float], shape: int, colour: int, modality: str, item: Named, facts: str
) -> str:
    """A point; the modalities differ in shape."""
    (x, y), s = at, _SIZE
    outline = [
        f"M{x - s} {y}a{s} {s} 0 1 0 {2 * s} 0a{s} {s} 0 1 0 {-2 * s} 0z",
        f"M{x - s + 1} {y - s + 1}h{2 * s - 2}v{2 * s - 2}h{2 - 2 * s}z",
        f"M{x} {y - s - 1}l{s + 1} {2 * s}h{-2 * s - 2}z",
        f"M{x} {y - s - 1}l{s + 1} {s + 1}l{-s - 1} {s + 1}l{-s - 1} {-s - 1}z",
    ][shape % 4]
    title = escape(f"{modality}: {item.text or item.place}")
    more = f' data-text="{escape(item.text)}"' if item.text else ""
    more += f' data-image="{escape(item.image)}"' if item.image else ""
    more += f' data-facts="{escape(facts)}"' if facts else ""
    data = f'data-modality="{escape(modality)}" data-place="{escape(item.place)}"{more}'
    return f'<path class="p s{colour}" d="{outline}" {data}><title>{title}</title></path>'


def _legend(names: Sequence[str]) -> str:
    return "".join(
        f'<span class="key"><i class="s{i}"></i>{escape(name)}</span>'
        for i, name in enumerate(names)
    )
