"""How long all candidates, and all subsets of three modalities, take in five folds."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from fusemix_core.config import Part
from fusemix_core.context import FitContext
from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.folds import folds_of
from fusemix_core.fusion.study import study, table
from fusemix_core.paired import PairedLatents, ResidentLatents
from fusemix_core.tasks.classify import Classify

ROWS, CLASSES = 5_000, 10
WIDTHS = {"image": 1280, "text": 384, "table": 30}


def measure() -> dict[str, Any]:
    """Seconds of the fits and of the shares, on two threads."""
    torch.set_num_threads(2)
    rows, task = generated()
    every = np.arange(ROWS)
    folds = folds_of({"train": every}, every, 5, 0)
    parts = [
        (
            task,
            *(rows.select(torch.from_numpy(one)) for one in (f.train, f.validation, f.test)),
            f.test,
        )
        for f in folds
    ]
    began, cpu = time.monotonic(), time.process_time()
    fusers = {name: Part(name) for name in ("concat", "block", "mlp")}
    found = study(parts, fusers, "auto", [FitContext()] * len(folds))
    measured = table(found)
    fitted = time.monotonic() - began
    shares = found.shares()
    return {
        "rows": ROWS,
        "widths": WIDTHS,
        "fit_seconds": round(fitted, 1),
        "all_seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "candidates": {name: one["seconds"] for name, one in measured.items()},
        "subsets": 2 ** len(shares) - 1,
    }


def generated() -> tuple[Labelled, Classify]:
    """Rows whose class depends on all three modalities."""
    draw = torch.Generator().manual_seed(0)
    cause = torch.randn(ROWS, 12, generator=draw)
    tables = {}
    for k, (name, width) in enumerate(WIDTHS.items()):
        own = cause[:, 4 * k : 4 * k + 4] @ torch.randn(4, width, generator=draw)
        tables[name] = ResidentLatents(own + 4 * torch.randn(ROWS, width, generator=draw))
    score = cause @ torch.randn(12, CLASSES, generator=draw)
    fact = Fact("class", score.argmax(dim=1).numpy(), tuple(map(str, range(CLASSES))))
    task = Classify.learn({"target": fact})
    links = torch.arange(ROWS)[:, None].repeat(1, len(WIDTHS))
    return Labelled(PairedLatents(tables, links), task.targets({"target": fact}), links[:, 0]), task
