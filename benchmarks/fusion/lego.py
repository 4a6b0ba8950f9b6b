"""What MM-Lego claims, on GBMLGG: blocks that were merged without any paired row against the best
modality, against fusing and stacking, as fewer training rows have several modalities."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fusion.sets import SETS
from fusemix_core.config import Part
from fusemix_core.devices import resolve_device
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.candidates import fit_candidates
from fusemix_core.fusion.folds import folds_of
from fusemix_core.fusion.parts import Part as Rows
from fusemix_core.fusion.parts import measures
from fusemix_core.interfaces import FitContext
from fusemix_core.runs.encode import Encoding, encode_dataset
from fusemix_core.runs.fusing import build_fuse_config, make_fuse_plan, target_facts
from fusemix_core.runs.inputs import table_of
from fusemix_core.runs.reporter import Reporter

SHARES = (1.0, 0.5, 0.25, 0.0)
"""Of training rows that keep all their modalities; the others keep one, drawn at random."""
FUSERS = {
    "lego, merged": Part("lego"),
    "lego, merged, no Fourier transform": Part("lego", {"frequency": False}),
    "lego, fused": Part("lego", {"mode": "fuse"}),
    "block": Part("block"),
}
FOLDS = 5


def measure(data: Path) -> dict[str, Any]:
    """Paired share → candidate → c and its interval, and the differences that are claimed."""
    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        folds = _folds(data)
        found = {f"{share:g}": _measured(folds, share, Path(folder)) for share in SHARES}
    return {"set": "gbmlgg", "cpu_seconds": round(time.process_time() - began), "shares": found}


def _folds(data: Path) -> list[tuple[Any, ...]]:
    """The task, training, validation and test rows and test numbers of each fold."""
    one = SETS["gbmlgg"](data)
    facts, targets = target_facts((), one.target["time"], one.target["event"])
    table = {**table_of(one.data, {}, len(one.encoders)), "facts": facts}
    values = {"encoders": one.encoders, "data": table, "targets": targets}
    config, specs = build_fuse_config(values)
    plan = make_fuse_plan(config, specs)
    how = Encoding(resolve_device("cpu"), views=plan.views)
    encoded = encode_dataset(plan.dataset, plan.specs, how, Reporter(), max_bad=0.0)
    rows = []
    for fold in folds_of(plan.dataset.splits, plan.targets.groups, FOLDS, 0):
        task = plan.targets.task(fold.train)
        parts = [fold.train, fold.validation, fold.test]
        rows.append((task, *(plan.targets.labelled(encoded.tables, p, task) for p in parts), fold))
    return rows


def _measured(folds: list[tuple[Any, ...]], share: float, folder: Path) -> dict[str, Any]:
    chosen_on, tested, kinds = [], [], {}
    for number, (task, train, validation, test, fold) in enumerate(folds):
        context = FitContext(seed=0)
        thin = thinned(train, share, number)
        made = fit_candidates(thin, validation, task, FUSERS, context)
        kinds = {name: one.kind for name, one in made.items()}
        for rows, numbers, parts in (
            (validation, np.arange(len(validation)), chosen_on),
            (test, fold.test, tested),
        ):
            scores = {name: one.predict(rows) for name, one in made.items()}
            parts.append(Rows(task, rows.targets, rows.groups.numpy(), scores, numbers))
        print(f"paired share {share:g}: fold {number + 1} of {len(folds)}", flush=True)
    single = measures(chosen_on).best(name for name, kind in kinds.items() if kind == "single")
    by = measures(tested)
    pairs = [
        ("lego, merged", single),
        ("lego, merged", "lego, merged, no Fourier transform"),
        ("lego, fused", "lego, merged"),
        ("lego, merged", "stack"),
    ]
    return {
        "single": single,
        "candidates": {name: [by.value(name), by.interval(name)] for name in kinds},
        "differences": [[*pair, by.difference(*pair).as_dict()] for pair in pairs],
    }


def thinned(rows: Labelled, share: float, seed: int) -> Labelled:
    """The rows with fewer modalities: a share keeps all of its own, each other row keeps one."""
    draw = torch.rand(rows.pairs.links.shape, generator=torch.Generator().manual_seed(seed))
    few = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + 1))
    few = few[: len(rows) - round(share * len(rows))]
    links = rows.pairs.links.clone()
    kept = draw.masked_fill(links < 0, -1.0).argmax(dim=1)
    alone = torch.full_like(links, -1)
    at = torch.arange(len(rows))
    alone[at, kept] = links[at, kept]
    links[few] = alone[few]
    return rows.with_links(links)
