"""Short films for trying out: shapes that count while a tone is heard, and others that don't."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fusemix_glance.films import write_film

SHAPES = ("circle", "square", "triangle")
RATE = 16_000
SIDE = 128
"""Pixels of a quarter of a frame."""


def write_sample(folder: Path, films: int = 60, seconds: int = 12, seed: int = 0) -> Path:
    """Write films and `films.csv`, which lists them: video, shape and split.

    In three seconds of each film a tone is heard: the shape that is seen then, in one quarter of
    the frame, is the film's. In the others, shapes are seen in silence.

    Args:
        folder: new, or empty.
        films: how many; the last sixth is the split `test`, the sixth before it `validation`.
        seconds: of each.
        seed: of all draws.

    Returns:
        The path of `films.csv`.
    """
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(films):
        shape = SHAPES[i % len(SHAPES)]
        salient = set(draw.choice(seconds, 3, replace=False).tolist())
        frames, sounds = [], []
        for t in range(seconds):
            shown = shape if t in salient else str(draw.choice(SHAPES))
            frames.append(_frame(shown, draw))
            sounds.append(_second(t in salient, draw))
        path = write_film(folder / f"{i:03}.mp4", frames, sounds, RATE)
        split = ("train", "validation", "test")[max(0, (6 * i) // films - 3)]
        rows.append([path.name, shape, split])
    table = folder / "films.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["video", "shape", "split"], *rows])
    return table


def _frame(shape: str, draw: np.random.Generator) -> np.ndarray:
    """uint8 `[256, 256, 3]`: the shape in one quarter of a textured ground."""
    ground = draw.integers(90, 166, size=(8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
    left, top = (int(SIDE * draw.integers(2) + draw.integers(8, 24)) for _ in range(2))
    size = int(draw.integers(80, 96))
    right, bottom = left + size, top + size
    colour = tuple(int(c) for c in draw.choice([0, 255], 3))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), fill=colour)
    else:
        pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=colour)
    return np.asarray(image)


def _second(tone: bool, draw: np.random.Generator) -> np.ndarray:
    """float32 `[16000]`: noise, and a tone."""
    noise = 0.02 * draw.standard_normal(RATE)
    time = np.arange(RATE) / RATE
    return (noise + 0.3 * tone * np.sin(2 * np.pi * draw.uniform(500, 1_000) * time)).astype(
        np.float32
    )
