"""What SAIL claims of several captions of an image: two texts of each against one.

    python -m benchmarks.captions --data DATA --out FOLDER

Figures of OpenStax that have an alt text and a caption. Each seed splits them by module. SAIL is
fitted to the alt texts; to both texts as rows by themselves; and to both in one batch
(`training.together`), in as many steps of as many rows. Choice and test are on alt texts only, the
same for all. FOLDER gets the manifests and the results of `fusemix bench`; this repository keeps
`benchmarks/results/captions`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.results import RESULTS
from fusemix_core import bench
from fusemix_core.benchmark.config import bench_config
from fusemix_core.benchmark.latents import read_set
from fusemix_core.benchmark.lines import NAME
from fusemix_core.benchmark.page import write_report
from fusemix_core.interfaces import FitContext, PairedLatents, Selector
from fusemix_core.registry import registry

SEEDS = 3
BATCH, BUDGET = 256, 102_400
ENCODERS = {"image": "efficientnet-lite0", "text": "minilm"}
ONE = "one text"
METHODS: Mapping[str, list[str]] = {
    ONE: ["selector=first-text"],
    "two texts": [],
    "two texts, together": ["training.together=image"],
}
Row = dict[str, str]


class FirstText(Selector):
    """The first row of each image."""

    fewer = "an image has one row"

    def select(self, pairs: PairedLatents, k: int, context: FitContext) -> Tensor:
        _, rows = np.unique(pairs.links[:, 0].numpy(), return_index=True)
        return torch.from_numpy(np.sort(rows)[:k])


def figures(path: Path) -> list[Row]:
    """Those with two different texts; images by their full path."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    found = [r for r in rows if (r["caption"] or "").strip() not in ("", r["alt"].strip())]
    return [r | {"image": str(path.parent.resolve() / r["image"])} for r in found]


def rows_of(rows: list[Row], splits: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """One row for each text; of what isn't trained on the alt text only."""
    for name, numbers in splits.items():
        for row in (rows[number] for number in numbers):
            for column in ("alt", "caption") if name == "train" else ("alt",):
                yield {"image": row["image"], "text": row[column], "split": name}


def write_rows(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def measure(rows: list[Row], seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of one seed."""
    whole = write_rows(folder / "figures.jsonl", rows)
    table = {"encoders": ENCODERS, "allow_outside": True}
    alts = table | {"source": whole, "columns": {"text": "alt"}, "group_by": "module"}
    config = bench_config({"methods": ["sail"], "sets": {"alts": alts}})
    (paired,) = config.sets
    split = read_set(paired, config.combinations(paired)[0], seed)
    numbers = {name: split.origin.row[own] - 1 for name, own in split.splits.items()}
    texts = list(rows_of(rows, numbers))
    source = write_rows(folder / f"texts-{seed}.jsonl", texts)
    for label, changes in METHODS.items():
        train = len(numbers["train"]) if label == ONE else "all"
        one = table | {"source": source, "split_column": "split", "train": train}
        settings = [f"training.batch_size={BATCH}", *changes]
        method = {"label": label, "recipe": "sail", "set": settings}
        values = {"methods": [method], "seeds": [seed], "budget": BUDGET, "sets": {"openstax": one}}
        yield from bench(values, folder / "fits")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with openstax")
    parser.add_argument("--out", type=Path, required=True, help="folder for manifests and fits")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    registry.add_component("selector", "first-text", FirstText)
    rows = figures(args.data / "openstax" / "manifest.jsonl")
    lines = [line for seed in range(SEEDS) for line in measure(rows, seed, args.out)]
    # They are compared at one place, on the same images, though not on as many rows.
    lines = [line | {"size": None} for line in lines]
    kept = RESULTS / "captions"
    kept.mkdir(exist_ok=True)
    kept.joinpath(NAME).write_text("".join(json.dumps(n) + "\n" for n in lines), encoding="utf-8")
    print(write_report(lines, kept).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
