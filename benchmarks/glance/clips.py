"""Long clips of real photographs and sounds, in which the moments that matter are known.

A clip has 30 moments. At each, four images are side by side and one second of sound is heard. At
three to six moments, the salient ones, one of the images is a piece of clothing of the clip's
class; which quarter it is in is drawn for each. Half of the clips lead by sound, half by image:

- by sound: every moment shows clothing of any class, over rain, waves, fire or a clock. At salient
  moments an animal or a baby is heard instead: it says which kind of clothing counts (tops,
  bottoms, or shoes and hats), and so which of the four. It does not say which class of that kind.
- by image: other moments show figures of textbooks only. What is heard says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.photographs import Pool, lines

MOMENTS = 30
SIDE = 2
"""Images a side of a frame."""
PIXELS = 160
"""A side of an image."""
SALIENT = (3, 6)
LEADS = ("sound", "image")
KINDS = {
    "Dog bark": ("t-shirt", "shirt", "longsleeve", "outwear"),
    "Rooster": ("pants", "shorts", "skirt", "dress"),
    "Baby cry": ("shoes", "hat"),
}
GROUNDS = ("Rain", "Sea waves", "Fire crackling", "Clock tick")
FOLDS = {"train": (1, 2), "validation": (3,), "test": (4,)}
"""Of the sounds."""
RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """One clip, as numbers of what it is made of.

    Attributes:
        label: number of its class.
        leads: `sound` or `image`.
        images: int64 `[30, 4]`: numbers of photographs, and after these, of figures.
        sounds: int64 `[30]`.
        place: int64 `[30]`: the quarter that matters, -1 if the moment isn't salient.
    """

    label: int
    leads: str
    images: np.ndarray
    sounds: np.ndarray
    place: np.ndarray

    @property
    def salient(self) -> np.ndarray:
        """bool `[30]`."""
        return self.place >= 0


@dataclass(frozen=True)
class Sounds:
    """Seconds of sound of a split: `samples` float32 `[n, 16000]`, and the numbers of each kind."""

    samples: np.ndarray
    numbers: dict[str, np.ndarray]


def build(
    pool: Pool, sounds: Sounds, names: Sequence[str], count: int, draw: np.random.Generator
) -> list[Clip]:
    """So many clips, half of them led by sound."""
    return [_clip(pool, sounds, names, LEADS[i % 2], draw) for i in range(count)]


def _clip(
    pool: Pool, sounds: Sounds, names: Sequence[str], leads: str, draw: np.random.Generator
) -> Clip:
    label = int(draw.integers(len(names)))
    event = next(sound for sound, kinds in KINDS.items() if names[label] in kinds)
    others = [k for k, name in enumerate(names) if name not in KINDS[event]]
    ground = draw.choice(GROUNDS)
    place = np.full(MOMENTS, -1)
    many = draw.integers(SALIENT[0], SALIENT[1] + 1)
    chosen = draw.choice(MOMENTS, many, replace=False)
    place[chosen] = draw.integers(SIDE**2, size=many)
    images = np.zeros((MOMENTS, SIDE**2), np.int64)
    heard = np.zeros(MOMENTS, np.int64)
    for t in range(MOMENTS):
        salient = place[t] >= 0
        for q in range(SIDE**2):
            if leads == "image":
                images[t, q] = len(pool.photographs) + draw.integers(len(pool.figures))
            else:
                kind = draw.choice(others) if salient else draw.integers(len(names))
                images[t, q] = pool.photograph(int(kind), draw)
        if salient:
            images[t, place[t]] = pool.photograph(label, draw)
        source = event if salient and leads == "sound" else ground
        heard[t] = draw.choice(sounds.numbers[source])
    return Clip(label, leads, images, heard, place)


def read_sounds(data: Path, split: str) -> Sounds:
    """Of each recording of a split the seconds that are heard: of events the two loudest."""
    samples, numbers = [], {}
    rows = [r for r in lines(data / "esc10" / "manifest.jsonl") if r["fold"] in FOLDS[split]]
    for name in (*KINDS, *GROUNDS):
        start = len(samples)
        for row in rows:
            if row["label"] == name:
                samples += _seconds(data / "esc10" / row["audio"], loudest=name in KINDS)
        numbers[name] = np.arange(start, len(samples))
    return Sounds(np.stack(samples), numbers)


def _seconds(path: Path, loudest: bool) -> list[np.ndarray]:
    """The seconds of a recording, each at one loudness."""
    from fusemix_core.data.media.audio import read_audio

    whole = read_audio(path, RATE).samples
    parts = [whole[i : i + RATE] for i in range(0, len(whole) - RATE + 1, RATE)]
    parts.sort(key=lambda x: -float(np.square(x).mean()))
    level = [x / max(1e-4, float(np.sqrt(np.square(x).mean()))) for x in parts]
    return [np.clip(0.1 * x, -1, 1).astype(np.float32) for x in level[: 2 if loudest else 5]]


def tile(path: Path) -> Image.Image:
    """An image as it is in a frame: the middle of it, 160 pixels a side."""
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (PIXELS, PIXELS))


def frame(tiles: Sequence[Image.Image], numbers: np.ndarray) -> Image.Image:
    """Four images side by side."""
    canvas = Image.new("RGB", (SIDE * PIXELS, SIDE * PIXELS))
    for q, number in enumerate(numbers):
        canvas.paste(tiles[number], (q % SIDE * PIXELS, q // SIDE * PIXELS))
    return canvas


def write(clip: Clip, tiles: Sequence[Image.Image], sounds: Sounds, path: Path) -> Path:
    """The clip as a film of 30 seconds."""
    from fusemix_glance.films import write_film

    frames = [np.asarray(frame(tiles, numbers)) for numbers in clip.images]
    return write_film(path, frames, list(sounds.samples[clip.sounds]), RATE)


def as_dict(clip: Clip) -> dict[str, Any]:
    """Plain values."""
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(clip).items()}
