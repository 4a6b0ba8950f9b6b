"""Training images in other colours, so that "a red fish" is red: no emoji set has one."""

from __future__ import annotations

import torch
from torch import Tensor

HUES = {  # degrees
    "red": 0,
    "orange": 30,
    "yellow": 52,
    "green": 125,
    "blue": 215,
    "purple": 278,
    "pink": 330,
    "brown": 25,  # of originals only
}
MADE = [colour for colour in HUES if colour != "brown"]
NAMES = list(HUES)
SHORT = {"automobile": "car", "ewe": "sheep", "doughnut": "donut", "ship": "boat"}
COLOUR_WORDS = ("red ", "green ", "blue ", "black ", "white ")


def short_name(name: str) -> str:
    """What people call it beside a colour: `red heart` is a heart, `dog face` a dog."""
    for word in COLOUR_WORDS:
        name = name.removeprefix(word)
    return SHORT.get(name, name.removesuffix(" face"))


def captions(name: str, colour: str) -> list[str]:
    return [f"a {colour} {short_name(name)}", f"{colour} {short_name(name)}"]


def to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in degrees, saturation and value `[n, h, w]` of RGB `[n, 3, h, w]` from 0 to 1."""
    r, g, b = x.unbind(1)
    value, spread = x.amax(1), x.amax(1) - x.amin(1)
    safe = spread.clamp(min=1e-6)
    hue = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )
    return hue.mul(60).remainder(360), spread / value.clamp(min=1e-6), value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `to_hsv`."""
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue / 60).remainder(6)
        wave = torch.minimum(k, 4 - k).clamp(0, 1)
        channels.append(value * (1 - saturation * wave))
    return torch.stack(channels, dim=1)


class Coloured:
    """Which images have one main colour, and what it is.

    Attributes:
        hue: The main hue of each image, degrees.
        one: Whether it has a main colour.
        name: The index of its colour's name in `NAMES`, -1 if it has none.
    """

    def __init__(self, images: Tensor) -> None:
        """Images `[n, 3, h, w]` from 0 to 1."""
        self.hsv = to_hsv(images)
        hue, saturation, value = self.hsv
        weight = saturation * value * (saturation > 0.25)
        angle = torch.deg2rad(hue)
        total = weight.sum((1, 2)).clamp(min=1e-6)
        x = (weight * angle.cos()).sum((1, 2)) / total
        y = (weight * angle.sin()).sum((1, 2)) / total
        self.hue = torch.rad2deg(torch.atan2(y, x)).remainder(360)
        inside = images.amin(1) < 0.92  # not the background
        vivid = (weight > 0.1).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        self.one = (x.hypot(y) > 0.75) & (vivid > 0.45)
        self.light = (value * weight).sum((1, 2)) / total
        self.strong = (saturation * weight).sum((1, 2)) / total
        known = torch.tensor([HUES[colour] for colour in MADE])
        distance = (self.hue[:, None] - known).add(180).remainder(360).sub(180).abs()
        nearest = distance.argmin(1)
        nearest[(nearest == MADE.index("orange")) & (self.light < 0.75)] = NAMES.index("brown")
        self.name = torch.where(self.one & (distance.amin(1) < 35), nearest, -1)

    def turned(self, colour: str) -> tuple[Tensor, Tensor]:
        """The images that have a main colour, in this one: images and their indices."""
        index = torch.nonzero(self.one & (self.name != NAMES.index(colour)))[:, 0]
        hue, saturation, value = (part[index] for part in self.hsv)
        hue = hue + (HUES[colour] - self.hue[index])[:, None, None]
        body = saturation > 0.25
        lighter = (0.85 / self.light[index]).clamp(1, 1.5)[:, None, None]
        stronger = (0.8 / self.strong[index]).clamp(1, 1.6)[:, None, None]
        value = torch.where(body, (value * lighter).clamp(max=1), value)
        saturation = torch.where(body, (saturation * stronger).clamp(max=1), saturation)
        if colour == "pink":
            saturation = saturation * 0.6
        return to_rgb(hue.remainder(360), saturation, value), index
