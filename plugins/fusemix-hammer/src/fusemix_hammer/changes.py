"""The changes that make a fake of a pair: of its words, or of a region of its image."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

AREA = (0.2, 0.4)
"""The least and the largest share of the image that a changed region takes."""
MARGIN = 0.06
"""Regions keep so far from the border: most encoders cut it off."""
MOST_WORDS = 3
"""Words of a text that are replaced at most."""
SEEN = 4.0
"""The mean change of a region's pixels, of 255, below which nobody could see it."""
_TRIES = 12
_WORD = re.compile(r"^(\W*)([A-Za-z][a-z]{3,})(\W*)$")
_PLAIN = """
about above after again against along also among another around because been before behind being
below between both could does down during each either from have having here himself into itself
just labeled like many more most much near only onto other others over same she should showing
shown shows some such than that their them then there these they this those three through toward
towards under until upon very were what when where which while whose will with within without
would your image photo picture figure illustration diagram
"""
"""Words that say little by themselves."""


@dataclass(frozen=True)
class Region:
    """A box in an image, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, size: int) -> tuple[int, int, int, int]:
        """The same in pixels of a square image."""
        left, top, right, bottom = (
            round(size * x) for x in (self.left, self.top, self.right, self.bottom)
        )
        return left, top, right, bottom

    @classmethod
    def of_pixels(cls, box: tuple[int, int, int, int], size: int) -> Region:
        """The region of a box in pixels of a square image."""
        left, top, right, bottom = (round(x / size, 4) for x in box)
        return cls(left, top, right, bottom)

    def __str__(self) -> str:
        return f"{self.left:g},{self.top:g},{self.right:g},{self.bottom:g}"


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle square of an image, `size` pixels wide: about what image encoders see."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.convert("RGB").resize(
        (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )


def spliced(
    image: Image.Image, donor: Image.Image, draw: np.random.Generator
) -> tuple[Image.Image, Region] | None:
    """The image with a part of the donor pasted in, and where; both are squares of one size.

    None if no part differs enough from the region that it covers.
    """
    for _ in range(_TRIES):
        box = _box(image.width, draw)
        width, height = box[2] - box[0], box[3] - box[1]
        left, top = (
            int(draw.integers(0, image.width - width + 1)),
            int(draw.integers(0, image.width - height + 1)),
        )
        part = donor.crop((left, top, left + width, top + height))
        if _differs(image.crop(box), part):
            return _pasted(image, part, box)
    return None


def altered(image: Image.Image, draw: np.random.Generator) -> tuple[Image.Image, Region] | None:
    """The image with the hue of a region turned, or the region blurred, and where.

    None if no such change of a region can be seen, as in an empty one.
    """
    for _ in range(_TRIES):
        box = _box(image.width, draw)
        part = image.crop(box)
        if draw.random() < 0.5:
            changed = _turned(part, float(draw.uniform(0.25, 0.75)))
        else:
            changed = part.filter(
                ImageFilter.GaussianBlur(float(draw.uniform(0.015, 0.03)) * image.width)
            )
        if _differs(part, changed):
            return _pasted(image, changed, box)
    return None


def _box(size: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of pixels in a square image, in any place but the margin."""
    area, ratio = draw.uniform(*AREA), np.exp(draw.uniform(-0.35, 0.35))
    most = 1 - 2 * MARGIN
    width, height = min(most, np.sqrt(area * ratio)), min(most, np.sqrt(area / ratio))
    left = draw.uniform(MARGIN, 1 - MARGIN - width)
    top = draw.uniform(MARGIN, 1 - MARGIN - height)
    return Region(left, top, left + width, top + height).pixels(size)


def _pasted(
    image: Image.Image, part: Image.Image, box: tuple[int, int, int, int]
) -> tuple[Image.Image, Region]:
    made = image.copy()
    made.paste(part, box[:2])
    return made, Region.of_pixels(box, image.width)


def _differs(first: Image.Image, second: Image.Image) -> bool:
    one, other = (np.asarray(x, np.float32) for x in (first, second))
    return float(np.abs(one - other).mean()) >= SEEN


def _turned(image: Image.Image, by: float) -> Image.Image:
    """The image with its hues turned by a share of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    moved = hue.point([(x + round(256 * by)) % 256 for x in range(256)])
    return Image.merge("HSV", (moved, saturation, value)).convert("RGB")


# -- words -----------------------------------------------------------------------------------------


def content_words(text: str) -> dict[int, str]:
    """Place → word, in small letters, of the words of a text that say something by themselves."""
    found, plain = {}, set(_PLAIN.split())
    for place, word in enumerate(text.split()):
        match = _WORD.match(word)
        if match and (small := match[2].lower()) not in plain:
            found[place] = small
    return found


def replaced(text: str, donor: str, draw: np.random.Generator) -> tuple[str, list[int]] | None:
    """The text with one to three of its content words replaced by such of the donor, and their
    places; None if one of the texts has none, or no other."""
    own, others = content_words(text), content_words(donor)
    new = [word for word in dict.fromkeys(others.values()) if word not in set(own.values())]
    most = min(MOST_WORDS, len(own), len(new))
    if not most:
        return None
    count = int(draw.integers(1, most + 1))
    places = sorted(draw.choice(list(own), count, replace=False).tolist())
    words = text.split()
    for place, chosen in zip(places, draw.choice(new, count, replace=False).tolist(), strict=True):
        before, word, after = _WORD.match(words[place]).groups()  # type: ignore[union-attr]
        words[place] = before + (chosen.capitalize() if word[0].isupper() else chosen) + after
    return " ".join(words), places
