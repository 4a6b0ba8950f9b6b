"""Probes of one image encoder on a stand-in for radiographs, for docs/methods/rad-dino.md.

python -m benchmarks.radiographs                # results/radiographs.json
python -m benchmarks.radiographs --encoder rad-dino --crop 1.0

Pictures of the sample in grey, half of them with an opacity: a bright soft disc whose side and size
are drawn. The mask is where it is. Nothing about it is like a radiograph but the form of the data.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import fusemix_starter
import numpy as np
from PIL import Image

from benchmarks.results import RESULTS
from fusemix_core import fuse

SIDE = 224
MASK = 255


def make(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder of images and masks; the table `radiographs.csv` in it.

    Columns: `image`, `mask`, `report`, `opacity` (yes, no), `side` (left, right; empty without an
    opacity), `radius` in pixels of 224 (empty without one).
    """
    sample = fusemix_starter.sample_path()
    with sample.open(newline="") as file:
        pictures = [sample.parent / row["image"] for row in csv.DictReader(file)][:count]
    draw, rows = np.random.default_rng(seed), []
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, path in enumerate(pictures):
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L").resize((SIDE, SIDE)), np.float32) * 0.7
        row: dict[str, Any] = {"image": f"images/{number}.png", "mask": f"masks/{number}.png"}
        mask = np.zeros((SIDE, SIDE), np.uint8)
        row |= {"report": "No opacity.", "opacity": "no", "side": "", "radius": ""}
        if draw.random() < 0.5:
            grey, mask, facts = with_opacity(grey, draw)
            row |= facts
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / row["image"])
        Image.fromarray(mask).save(folder / row["mask"])
        rows.append(row)
    with (folder / "radiographs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "radiographs.csv"


def with_opacity(
    grey: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(the picture with a soft bright disc, its mask, the facts of the row)."""
    side, radius = draw.choice(["left", "right"]), draw.uniform(22, 48)
    x = draw.uniform(50, 85) + (SIDE // 2 - 15) * (side == "right")
    y = draw.uniform(60, SIDE - 60)
    at = np.arange(SIDE)
    distance = np.hypot(at - x, at[:, None] - y) / radius
    soft = 1 / (1 + np.exp(8 * (distance - 1)))
    mask = ((distance < 1) * MASK).astype(np.uint8)
    report = f"{'Large' if radius > 35 else 'Small'} opacity on the {side}."
    facts = {"report": report, "opacity": "yes", "side": side, "radius": f"{radius:.0f}"}
    return grey + 90 * soft, mask, facts


PROBES: dict[str, dict[str, Any]] = {
    "segment": {
        "target": "mask",
        "task": {"name": "segment", "options": {"classes": ["none", "opacity"]}},
        "views": {"image": "grid"},
    },
    "opacity": {"target": "opacity"},
    "side": {"target": "side"},
    "radius": {"target": "radius"},
}
"""Name → what is predicted from the image only."""
KEPT = ("task", "splits", "fuser", "candidates")


def measure(table: Path, encoder: str, crop: float) -> dict[str, Any]:
    """Probe → the results of `fusemix fuse` with one encoder."""
    found = {}
    for name, probe in PROBES.items():
        more = dict(probe)
        if name == "segment":
            more["fuser"] = {"name": "dense", "options": {"crop": crop}}
        with tempfile.TemporaryDirectory() as folder:
            done = fuse({"image": encoder}, table, **more, out=Path(folder) / "run")
        found[name] = {key: done.results[key] for key in KEPT}
        for one in found[name]["candidates"].values():
            print(name, one["kind"], one["metrics"], one["interval"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--crop", type=float, default=0.875, help="the share that it sees")
    parser.add_argument("--images", type=int, default=240)
    args = parser.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        table = make(Path(folder) / "radiographs", args.images)
        probes = measure(table, args.encoder, args.crop)
    results = {
        "encoder": args.encoder,
        "images": args.images,
        "cpu_seconds": round(time.process_time() - began),
        "probes": probes,
    }
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "radiographs.json").write_text(text)


if __name__ == "__main__":
    main()
