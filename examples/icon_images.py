"""Images of icons: an SVG drawn by Skia as a PNG, and a contact sheet of what a search found.

Used by `icons.py`; not an example by itself.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

CANVAS, DRAWING = 256, 224
"""The encoder scales an image to 256 pixels and looks at the 224 in its middle: the drawing."""


def load_skia() -> ModuleType:
    """Skia, or the advice to install it."""
    try:
        import skia
    except ImportError as error:
        raise SystemExit(
            f"This example draws icons with Skia ({error}). Install it with\n"
            "    pip install skia-python"
        ) from error
    return skia


def draw(skia: ModuleType, svg: str) -> Image.Image | None:
    """The drawing on white, as large as fits. None if it can't be drawn, or shows nothing."""
    # Copied (True): Skia reads the bytes later, when Python may have freed its own.
    document = skia.SVGDOM.MakeFromStream(skia.MemoryStream(svg.encode(), True))
    if document is None:
        return None
    size = document.containerSize()
    longer = max(size.width(), size.height())
    if not 0 < longer < float("inf"):
        return None
    pixels = np.full((CANVAS, CANVAS, 4), 255, np.uint8)  # RGBA
    surface, scale = skia.Surface(pixels), DRAWING / longer
    with surface as canvas:
        canvas.translate((CANVAS - size.width() * scale) / 2, (CANVAS - size.height() * scale) / 2)
        canvas.scale(scale, scale)
        document.render(canvas)
    surface.flushAndSubmit()
    return None if (pixels == 255).all() else Image.fromarray(pixels[..., :3].copy())


def save(image: Image.Image, path: Path) -> None:
    """As a PNG, whole or not at all: an interrupted run leaves no half image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    image.save(part, "PNG", compress_level=1)
    part.replace(path)


@dataclass(frozen=True)
class Found:
    """An icon on a contact sheet. unseen: its concept was not in training."""

    image: Path
    words: str
    set: str
    unseen: bool


TILE, GAP, EDGE, HEAD, CAPTION = 112, 16, 32, 44, 70
INK, GREY, LINE, GREEN = "#16202c", "#6b7684", "#dde2e8", "#0a8f5b"


def contact_sheet(searches: Sequence[tuple[str, Sequence[Found]]]) -> Image.Image:
    """A row of icons for each search, the best first, with their words and sets."""
    columns = max(len(found) for _, found in searches)
    row = HEAD + TILE + CAPTION
    width = 2 * EDGE + columns * TILE + (columns - 1) * GAP
    sheet = Image.new("RGB", (max(width, 560), EDGE + len(searches) * row + 36), "white")
    pen, fonts = ImageDraw.Draw(sheet), Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    title = ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 20)
    text, small = (ImageFont.truetype(fonts / "DejaVuSans.ttf", size) for size in (13, 11))
    for number, (query, found) in enumerate(searches):
        top = EDGE + number * row
        pen.text((EDGE, top + 8), textwrap.shorten(query, 60), INK, title)
        for place, icon in enumerate(found):
            x, y = EDGE + place * (TILE + GAP), top + HEAD - 8
            pen.rounded_rectangle((x, y, x + TILE - 1, y + TILE - 1), 10, "white", LINE)
            with Image.open(icon.image) as image:
                inside = image.convert("RGB").resize(
                    (TILE - 12, TILE - 12), Image.Resampling.LANCZOS
                )
            sheet.paste(inside, (x + 6, y + 6))
            lines = _lines(icon.words, text, TILE)
            for down, line in enumerate(lines):
                ink = GREEN if icon.unseen else INK
                pen.text((x + 2, y + TILE + 6 + 16 * down), line, ink, text)
            below = y + TILE + 8 + 16 * len(lines)
            pen.text((x + 2, below), _cut(icon.set, small, TILE), GREY, small)
    if any(icon.unseen for _, found in searches for icon in found):
        legend = "Green: training had no icon of this name."
        pen.text((EDGE, sheet.height - 32), legend, GREEN, small)
    return sheet


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in one line, or broken between words into two."""
    words = text.split()
    first = words[:1]
    while len(first) < len(words) and font.getlength(" ".join(words[: len(first) + 1])) <= width:
        first = words[: len(first) + 1]
    lines = [" ".join(first), " ".join(words[len(first) :])]
    return [_cut(line, font, width) for line in lines if line]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut at its end if it is wider."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
