"""A little world for tests: patches of colour, what they are called, and a tone for each."""

import csv

import numpy as np
import soundfile
from PIL import Image

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240),
    "black": (15, 15, 15), "yellow": (230, 220, 40), "pink": (240, 150, 190), "grey": (128,) * 3,
}  # fmt: skip
THINGS = ("car", "house", "bird", "cup", "tree", "boat", "coat", "door")


def write_world(folder, count=64, sounds=False):
    """`count` rows in pairs.csv: image, text, thing and, for two thirds of them, audio."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        name = list(COLOURS)[i % len(COLOURS)]
        thing = THINGS[(i // len(COLOURS)) % len(THINGS)]
        base = np.array(COLOURS[name], float) + 12 * THINGS.index(thing)
        pixels = np.clip(base + random.normal(0, 10 + 3 * THINGS.index(thing), (12, 12, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        row = {"image": f"{i}.png", "text": f"a {name} {thing} number {i}", "thing": thing}
        if sounds:
            row["audio"] = ""
            if i % 3:
                pitch = 200 + 300 * list(COLOURS).index(name) + 30 * THINGS.index(thing) + i / 100
                tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(2000) / 8000)
                soundfile.write(folder / f"{i}.wav", tone, 8000)
                row["audio"] = f"{i}.wav"
        rows.append(row)
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"
