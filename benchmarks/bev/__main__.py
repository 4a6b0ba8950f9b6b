"""Measures the fuser `grid` on synthetic scenes, and writes what docs/methods/bev.md shows.

python -m benchmarks.bev           # five seeds: about five minutes of one core
python -m benchmarks.bev --page    # only the page and its picture, from what is kept

Each seed has scenes of its own for training, validation and test. All fusers are trained on shifts
that are drawn for each scene, from 0 to 4 cells, and in mixed light. Test scenes are measured once:
those of one shift each, in mixed light, and those of one light each, with mixed shifts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fusemix_bev.fuser import GridFuser
from fusemix_bev.scenes import LIGHTS, Scenes, scenes

from benchmarks.bev.page import RESULTS, write
from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.candidates import scores_of
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.tasks.occupy import Occupy

SEEDS = 5
SIZE, TRAIN, HELD_OUT = 16, 500, 150
SHIFTS = (0, 1, 2, 3, 4)
ARMS: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "camera": (("camera",), {}),
    "ultrasonic": (("ultrasonic",), {}),
    "plain": (("camera", "ultrasonic"), {"dilation": "none"}),
    "fixed": (("camera", "ultrasonic"), {"dilation": "fixed"}),
    "content": (("camera", "ultrasonic"), {"dilation": "content"}),
    "both": (("camera", "ultrasonic"), {"dilation": "content", "gate": "both"}),
}
COMMON = {"width": 16, "dilations": [1, 2, 4], "training": {"epochs": 12}}


def rows_of(made: Scenes, task: Occupy | None = None) -> tuple[Labelled, Occupy]:
    """Scenes as labelled rows, and the task that they, or others, have taught."""
    facts = {"target": Fact("grid", made.occupied.astype(np.float32))}
    task = task or Occupy.learn(facts)
    tables = {
        m: ResidentLatents(torch.from_numpy(getattr(made, m))) for m in ("camera", "ultrasonic")
    }
    count = len(made.light)
    links = torch.arange(count)[:, None].repeat(1, 2)
    pairs = PairedLatents(dict(tables), links)
    return Labelled(pairs, task.targets(facts), torch.arange(count)), task


def measured(seed: int) -> dict[str, Any]:
    """Arm → number of weights, and IoU in each condition."""
    start = 1000 * seed
    train, task = rows_of(scenes(TRAIN, start, size=SIZE))
    validation, _ = rows_of(scenes(HELD_OUT, start + 1, size=SIZE), task)
    given = {f"shift {d}": {"shift": d} for d in SHIFTS} | {one: {"light": one} for one in LIGHTS}
    tests = {
        name: rows_of(scenes(HELD_OUT, start + 10 + k, size=SIZE, **how), task)[0]
        for k, (name, how) in enumerate(given.items())
    }
    found = {}
    for arm, (modalities, options) in ARMS.items():
        context = FitContext(seed=seed)
        own = [rows.only(modalities) for rows in (train, validation)]
        fuser = GridFuser.fit(*own, task, context, **COMMON, **options).fuser
        nothing = task.baseline(train.targets)
        found[arm] = {"weights": sum(p.numel() for p in fuser.parameters() if p.requires_grad)}
        found[arm]["iou"] = {
            name: task.score(scores_of(fuser, rows.only(modalities), nothing), rows.targets)
            for name, rows in tests.items()
        }
        print(f"seed {seed}: {arm} {found[arm]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help="only write the page")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        began = time.process_time()
        seeds = [measured(seed) for seed in range(SEEDS)]
        results = {"cpu_seconds": round(time.process_time() - began), "seeds": seeds}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write()


if __name__ == "__main__":
    main()
