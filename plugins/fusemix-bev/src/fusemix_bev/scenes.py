"""Synthetic scenes around a car: what a camera and ultrasonic sensors see of the same obstacles, as
maps from above, and which cells are occupied.

    python -m fusemix_bev.scenes --out scenes --rows 900

writes `camera.npy` `[n, S, S, 2]`, `ultrasonic.npy` `[n, S, S, 1]`, `occupancy.npy` `[n, S, S]` and
`scenes.csv`, with the light and the shift of each row.

The car is below the middle of the map. The camera knows directions well and distances badly: an
obstacle begins near its true place, and is drawn out away from the car. At night it is faint and
noisy; glare hides a sector. Each of twelve ultrasonic sensors knows the distance of the nearest
obstacle in its sector, not where in the sector it is, in any light. Its map is shifted by some
cells, in a direction and by a number of cells that are drawn anew for each row: a shift that all
rows had, any convolution would learn.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

LIGHTS = ("day", "night", "glare")
SENSORS = 12
RAYS = 60
SPLITS = (("train", 0.6), ("validation", 0.2), ("test", 0.2))


@dataclass(frozen=True)
class Scenes:
    """n scenes.

    Attributes:
        camera: float32 `[n, S, S, 2]`: what is seen, and how bright it is.
        ultrasonic: float32 `[n, S, S, 1]`, shifted.
        occupied: uint8 `[n, S, S]`, in the camera's place.
        light: of each scene, one of `LIGHTS`.
        shift: int64 `[n, 2]`, in cells.
    """

    camera: np.ndarray
    ultrasonic: np.ndarray
    occupied: np.ndarray
    light: list[str]
    shift: np.ndarray


@dataclass(frozen=True)
class _Polar:
    """Distance and sector of each cell, seen from the car."""

    size: int

    @cached_property
    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """(distance in cells, angle from 0 at the right to 1 at the left), `[S, S]` each."""
        rows, columns = np.mgrid[0 : self.size, 0 : self.size] + 0.5
        ahead, right = self.size + 1 - rows, columns - self.size / 2
        return np.hypot(ahead, right), np.arctan2(ahead, right) / np.pi

    def nearest(self, occupied: np.ndarray, sectors: int) -> tuple[np.ndarray, np.ndarray]:
        """(distance of the nearest obstacle in each sector, infinite without one; int64 `[S, S]`,
        the sector of each cell)."""
        distance, angle = self.place
        sector = np.minimum((angle * sectors).astype(int), sectors - 1)
        found = np.full(sectors, np.inf)
        np.minimum.at(found, sector[occupied], distance[occupied])
        return found, sector


def scenes(
    count: int,
    seed: int = 0,
    *,
    size: int = 24,
    most: int = 4,
    shift: int | None = None,
    light: str | None = None,
) -> Scenes:
    """Scenes drawn at random.

    Args:
        count: how many.
        seed: the same gives the same.
        size: S, in cells.
        most: the shift of each scene is drawn from 0 to so many cells.
        shift: that of all scenes instead, in a direction of its own for each.
        light: that of all scenes; half are by day, the others by night or with glare.

    Example:
        made = scenes(600, most=4)
    """
    draw = np.random.default_rng(seed)
    polar = _Polar(size)
    camera, sound, occupied, lights, shifts = [], [], [], [], []
    for _ in range(count):
        truth = _obstacles(draw, size)
        drawn = str(draw.choice(LIGHTS, p=(0.5, 0.25, 0.25)))
        length, angle = draw.integers(0, most + 1), draw.uniform(0, 2 * np.pi)
        length, drawn = length if shift is None else shift, light or drawn
        moved = np.rint(length * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        camera.append(_camera(draw, polar, truth, drawn))
        sound.append(_shifted(_ultrasonic(draw, polar, truth), moved)[..., None])
        occupied.append(truth)
        lights.append(drawn)
        shifts.append(moved)
    seen, heard = (np.stack(one).astype(np.float32) for one in (camera, sound))
    return Scenes(seen, heard, np.stack(occupied).astype(np.uint8), lights, np.stack(shifts))


def write(folder: Path, count: int, seed: int = 0, *, size: int = 24, most: int = 4) -> Path:
    """Write scenes as `fusemix fuse` reads them; the path of their table. Arguments as of
    `scenes`."""
    made = scenes(count, seed, size=size, most=most)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "camera.npy", made.camera)
    np.save(folder / "ultrasonic.npy", made.ultrasonic)
    np.save(folder / "occupancy.npy", made.occupied)
    ends = np.cumsum([round(share * count) for _, share in SPLITS])
    with (folder / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["camera", "ultrasonic", "occupied", "split", "light", "shift"])
        for i, (light, shift) in enumerate(zip(made.light, made.shift, strict=True)):
            split = SPLITS[min(int((i >= ends).sum()), len(SPLITS) - 1)][0]
            table.writerow([i, i, f"occupancy.npy#{i}", split, light, round(np.hypot(*shift))])
    return folder / "scenes.csv"


def _obstacles(draw: np.random.Generator, size: int) -> np.ndarray:
    """bool `[S, S]`: two to five boxes and discs."""
    rows, columns = np.mgrid[0:size, 0:size]
    truth = np.zeros((size, size), bool)
    for _ in range(draw.integers(2, 6)):
        top, left = draw.integers(1, size - 3, 2)
        high, wide = draw.integers(2, max(size // 5, 3) + 1, 2)
        if draw.random() < 0.5:
            truth[top : top + high, left : left + wide] = True
        else:
            truth |= np.hypot(rows - top, columns - left) <= high / 2 + 0.3
    return truth


def _camera(draw: np.random.Generator, polar: _Polar, truth: np.ndarray, light: str) -> np.ndarray:
    """`[S, S, 2]`: along each ray, from about the nearest obstacle on, ever fainter."""
    found, sector = polar.nearest(truth, RAYS)
    distance, angle = polar.place
    wrong = np.repeat(draw.normal(0, 0.08, RAYS // 4), 4)  # of neighbours alike
    begins = (found * (1 + wrong))[sector]
    behind = distance - begins
    seen = np.where(behind >= -0.5, np.exp(-np.maximum(behind, 0) / 3), 0.0)
    bright = np.full(truth.shape, 0.8)
    noise = 0.08
    if light == "night":
        seen, bright, noise = 0.2 * seen, np.full(truth.shape, 0.1), 0.2
    if light == "glare":
        hidden = np.abs(angle - draw.uniform(0.2, 0.8)) < 0.17
        seen, bright = np.where(hidden, 1.0, seen), np.where(hidden, 1.0, bright)
    maps = np.stack([seen, bright], axis=-1)
    return maps + draw.normal(0, noise, maps.shape) * [1, 0.3]


def _ultrasonic(draw: np.random.Generator, polar: _Polar, truth: np.ndarray) -> np.ndarray:
    """`[S, S]`: an arc in each sector whose sensor hears an echo."""
    found, sector = polar.nearest(truth, SENSORS)
    heard = (found < 0.9 * polar.size) & (draw.random(SENSORS) < 0.95)
    where = np.where(heard, found + draw.normal(0, 0.2, SENSORS), -np.inf)[sector]
    arc = np.abs(polar.place[0] - 0.4 - where) < 0.9
    return arc + draw.normal(0, 0.03, truth.shape)


def _shifted(maps: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The map moved by some cells, with zeros at the edge."""
    moved = np.zeros_like(maps)
    (to_rows, of_rows), (to_columns, of_columns) = (
        (slice(max(d, 0), n + min(d, 0)), slice(max(-d, 0), n + min(-d, 0)))
        for d, n in zip(by.tolist(), maps.shape, strict=True)
    )
    moved[to_rows, to_columns] = maps[of_rows, of_columns]
    return moved


def main() -> None:
    parser = argparse.ArgumentParser(description="Write synthetic scenes around a car.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--rows", type=int, default=900)
    parser.add_argument("--size", type=int, default=24, help="cells a side")
    parser.add_argument("--most", type=int, default=4, help="cells of shift at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(write(given.out, given.rows, given.seed, size=given.size, most=given.most))


if __name__ == "__main__":
    main()
