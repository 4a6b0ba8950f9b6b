"""What All-in-One claims: frames that exchange tokens by rolling tell what depends on their order.

    python -m benchmarks.rolling --data DATA

DATA holds clothing10 and openstax. Clips are six real photographs and figures in a row:

- `direction`: the ten kinds of clothing in a fixed order, six of them from anywhere on, forward or
  backward. Each photograph is as likely at each place in either case, so that only neighbours tell.
- `first`: two kinds of clothing among figures, and a question: "Did the dress come before the hat?"
- `seen`: one piece of clothing among figures; which kind. Order doesn't matter.

The fuser `rolling` is fitted as published, without rolling, without the embeddings of places, and
without both, to the same clips, five times. Photographs of test clips are in no other clip.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusemix_all_in_one.fuser import RollingFuser
from PIL import Image
from torch import Tensor

from benchmarks.photographs import Pool, load_encoder, read_pools
from benchmarks.results import RESULTS, machine
from fusemix_core.data.facts import Fact
from fusemix_core.evaluation.seeds import mean_interval
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import (
    Encoder,
    FitContext,
    Padded,
    PairedLatents,
    ResidentLatents,
    Task,
)
from fusemix_core.paired import ResidentTokens
from fusemix_core.tasks.classify import Classify

FRAMES = 6
COUNTS = {"train": 400, "validation": 100, "test": 400}
SEEDS = 5
ARMS: dict[str, dict[str, Any]] = {
    "rolling, places (as published)": {"roll": "default", "order": True},
    "places only": {"roll": "none", "order": True},
    "rolling only": {"roll": "default", "order": False},
    "averaging": {"roll": "none", "order": False},
}
AGAINST = "places only"
SETTINGS = {"width": 64, "layers": 2, "dropout": 0.2}


@dataclass(frozen=True)
class Latents:
    """Latents of a pool's photographs and figures, `[n, d]`."""

    pool: Pool
    photographs: Tensor
    figures: Tensor

    def photograph(self, kind: int, draw: np.random.Generator) -> Tensor:
        return self.photographs[self.pool.photograph(kind, draw)]

    def figure(self, draw: np.random.Generator) -> Tensor:
        return self.figures[draw.integers(len(self.figures))]


Clip = tuple[list[Tensor], str, str]
"""Frames, question (or nothing) and answer."""


def direction(pool: Latents, names: list[str], draw: np.random.Generator) -> Clip:
    """Six kinds in the order of their names, or against it."""
    start, step = draw.integers(len(names)), draw.choice([1, -1])
    kinds = [(start + step * i) % len(names) for i in range(FRAMES)]
    return [pool.photograph(k, draw) for k in kinds], "", "forward" if step > 0 else "backward"


def first(pool: Latents, names: list[str], draw: np.random.Generator) -> Clip:
    """Two kinds at two of the places, and a question about their order."""
    a, b = draw.choice(len(names), 2, replace=False)
    places = np.sort(draw.choice(FRAMES, 2, replace=False))
    frames = [pool.figure(draw) for _ in range(FRAMES)]
    for place, kind in zip(places, (a, b), strict=True):
        frames[place] = pool.photograph(kind, draw)
    asked, answer = ((a, b), "yes") if draw.random() < 0.5 else ((b, a), "no")
    return frames, f"Did the {names[asked[0]]} come before the {names[asked[1]]}?", answer


def seen(pool: Latents, names: list[str], draw: np.random.Generator) -> Clip:
    """One kind at one of the places."""
    kind, place = draw.integers(len(names)), draw.integers(FRAMES)
    frames = [pool.figure(draw) for _ in range(FRAMES)]
    frames[place] = pool.photograph(kind, draw)
    return frames, "", names[kind]


TASKS: dict[str, Callable[[Latents, list[str], np.random.Generator], Clip]] = {
    "direction": direction,
    "first": first,
    "seen": seen,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--quick", action="store_true", help="small, and nothing is kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    counts = {name: n // 10 for name, n in COUNTS.items()} if args.quick else COUNTS
    pools, names = read(args.data)
    found = {
        name: measured(name, pools, names, counts, 1 if args.quick else SEEDS) for name in TASKS
    }
    if not args.quick:
        seconds = round(time.process_time() - began)
        content = {"machine": machine(), "cpu_seconds": seconds, "clips": counts, "tasks": found}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (RESULTS / "rolling.json").write_text(text)


def measured(
    name: str, pools: dict[str, Latents], names: list[str], counts: dict[str, int], seeds: int
) -> dict[str, list[float]]:
    """Arm → accuracy on test clips for each seed, which draws all clips anew."""
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        draws = {split: np.random.default_rng([k, seed]) for k, split in enumerate(counts)}
        clips = {
            split: [TASKS[name](pools[split], names, draw) for _ in range(counts[split])]
            for split, draw in draws.items()
        }
        task, rows = labelled(clips)
        for arm, how in ARMS.items():
            options = {**SETTINGS, **how}
            train, validation = rows["train"], rows["validation"]
            fitted = RollingFuser.fit(train, validation, task, FitContext(seed=seed), **options)
            found[arm].append(round(accuracy(fitted.fuser, rows["test"]), 4))
            print(f"{name}, seed {seed}: {arm}: {found[arm][-1]}", flush=True)
    for arm, own in found.items():
        ahead = mean_interval([a - b for a, b in zip(own, found[AGAINST], strict=True)])
        print(f"{name}: {arm}: {mean_interval(own)}, less {AGAINST}: {ahead}", flush=True)
    return found


def labelled(clips: dict[str, list[Clip]]) -> tuple[Task, dict[str, Labelled]]:
    """The task, and the clips of each split as labelled rows of `video` and, if asked, `text`."""
    every = [clip for own in clips.values() for clip in own]
    answers = sorted({answer for _, _, answer in every})
    values = np.array([answers.index(answer) for _, _, answer in every])
    fact = Fact("class", values, tuple(answers))
    task = Classify.learn({"target": fact})
    frames = torch.stack([torch.stack(frames) for frames, _, _ in every])
    tables: dict[str, ResidentLatents] = {"video": ResidentLatents(frames)}
    links = np.arange(len(every))[:, None]
    questions = sorted({question for _, question, _ in every} - {""})
    if questions:
        tables["text"] = texts(questions)
        asked = np.array([questions.index(question) for _, question, _ in every])
        links = np.concatenate([links, asked[:, None]], axis=1)
    pairs = PairedLatents(tables, torch.from_numpy(links)).with_tokens(tables)
    whole = Labelled(pairs, task.targets({"target": fact}), torch.arange(len(every)))
    parts = torch.arange(len(every)).split([len(own) for own in clips.values()])
    return task, {split: whole.select(own) for split, own in zip(clips, parts, strict=True)}


def accuracy(fuser: RollingFuser, rows: Labelled) -> float:
    """The share of rows whose prediction is right."""
    with torch.no_grad():
        latents: dict[str, Padded] = {m: _padded(rows, m) for m in rows.modalities}
        scores = fuser(latents, rows.present)
    return float((scores.argmax(dim=1) == rows.targets.values).double().mean())


def _padded(rows: Labelled, modality: str) -> Padded:
    found = rows.latents(modality)
    assert isinstance(found, Padded)
    return found


def read(data: Path) -> tuple[dict[str, Latents], list[str]]:
    """The latents of each split, and the names of the classes."""
    pools, names = read_pools(data)
    encoder = load_encoder("efficientnet-lite0")
    found = {
        split: Latents(pool, images(encoder, pool.photographs), images(encoder, pool.figures))
        for split, pool in pools.items()
    }
    return found, names


def images(encoder: Encoder, paths: list[Path]) -> Tensor:
    """Pooled latents `[n, d]` of image files."""
    found = []
    for path in paths:
        with Image.open(path) as image:
            found.append(encoder.encode(encoder.collate([image.convert("RGB")])))
    return torch.cat(found)


def texts(lines: list[str]) -> ResidentTokens:
    """The tokens of texts."""
    encoder = load_encoder("minilm")
    found = encoder.encode(encoder.collate(lines), "tokens")
    return ResidentTokens(found.values[found.mask], found.mask.sum(dim=1))


if __name__ == "__main__":
    main()
