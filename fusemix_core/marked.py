"""Items with findings: boxes drawn on an image, words marked in a text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

FOUND, TRUE = "#d9480f", "#2b8a3e"
LEGEND = "Orange: found. Green: true."
Edges = Sequence[float]
"""Left, top, right and bottom, in shares of the image."""
_SIDE, _PAD, _SIZE, _LINE = 380, 8, 15, 22


@dataclass(frozen=True)
class Word:
    """A word, whether it was found, and whether it is to be found."""

    text: str
    found: bool = False
    true: bool = False


def marked(
    image: Image | None = None,
    found: Edges | None = None,
    true: Edges | None = None,
    words: Sequence[Word] = (),
    title: str = "",
) -> bytes:
    """A PNG of an image with two boxes, and below it a title and a text whose words are marked.

    Args:
        image: nothing is drawn of it if None.
        found, true: the box that was predicted, and the true one; None if there is none.
        words: of the text.
        title: a line of its own.

    Example:
        Figure(marked(image, found=(0.1, 0.2, 0.5, 0.6)), alt="A photo with a box")
    """
    from PIL import Image as images
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(_SIZE)
    lines = _lines([Word(one) for one in title.split()], font) + _lines(words, font)
    height = (
        0 if image is None else min(4 * _SIDE, max(1, round(_SIDE * image.height / image.width)))
    )
    sheet = images.new("RGB", (_SIDE, height + len(lines) * _LINE + 2 * _PAD), "white")
    draw = ImageDraw.Draw(sheet)
    if image is not None:
        sheet.paste(image.convert("RGB").resize((_SIDE, height)), (0, 0))
        for edges, colour in ((true, TRUE), (found, FOUND)):
            if edges is not None:
                draw.rectangle(_pixels(edges, height), outline=colour, width=4)
    for number, line in enumerate(lines):
        _write(draw, line, height + _PAD + number * _LINE, font)
    out = io.BytesIO()
    sheet.quantize(128).save(out, "PNG", optimize=True)
    return out.getvalue()


def _pixels(edges: Edges, height: int) -> list[int]:
    """A box of the drawn image; one without area is a point."""
    left, top, right, bottom = (min(1.0, max(0.0, float(x))) for x in edges)
    x, y = round(left * (_SIDE - 1)), round(top * (height - 1))
    return [x, y, max(x, round(right * (_SIDE - 1))), max(y, round(bottom * (height - 1)))]


def _lines(words: Sequence[Word], font: Any) -> list[list[Word]]:
    """The words, broken into lines."""
    lines: list[list[Word]] = []
    left = 0.0
    for word in words:
        wide = font.getlength(f"{word.text} ")
        if not lines or left + wide > _SIDE - 2 * _PAD:
            lines.append([])
            left = 0.0
        lines[-1].append(word)
        left += wide
    return lines


def _write(draw: ImageDraw, line: Sequence[Word], top: int, font: Any) -> None:
    """Write a line: found words on colour, true ones underlined."""
    left = float(_PAD)
    for word in line:
        wide = font.getlength(word.text)
        if word.found:
            draw.rectangle([left - 2, top, left + wide + 2, top + _SIZE + 3], fill=FOUND)
        draw.text((left, top), word.text, fill="white" if word.found else "black", font=font)
        if word.true:
            low = top + _SIZE + 3
            draw.line([left, low, left + wide, low], fill=TRUE, width=3)
        left += wide + font.getlength(" ")
