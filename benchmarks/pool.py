"""Sets to choose settings on: none of their pairs to fit or choose on is one to test another seed.

    python -m benchmarks.pool --data DATA --out POOL

Each seed of `methods.toml` has its own split, so the validation split of one has pairs of another's
test split. `POOL/SET.jsonl` is the first seed's split without those. Its test split stays as it is,
as `fusemix bench` wants one; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fusemix_core.benchmark.config import BenchConfig, PairedSet, bench_config
from fusemix_core.benchmark.latents import read_set
from fusemix_core.config import read_toml
from fusemix_core.data.dataset import PairedDataset

METHODS = Path(__file__).parent / "methods.toml"
SETS = ("openstax", "chebi20")
Row = dict[str, str]


def pool(config: BenchConfig, paired: PairedSet) -> Iterator[Row]:
    """The pairs of the first seed, modality → text or path, and the `split` of each."""
    chosen = config.combinations(paired)[0]
    first, *others = (read_set(paired, chosen, seed) for seed in config.seeds)
    tested = {place for one in others for place in _places(one, one.splits["test"])}
    for name, rows in first.splits.items():
        for row, place in zip(rows, _places(first, rows), strict=True):
            if name == "test" or place not in tested:
                yield _pair(first, row) | {"split": name}


def _places(dataset: PairedDataset, rows: np.ndarray) -> Sequence[tuple[str, int]]:
    """File and row of each, which no seed changes."""
    return [dataset.origin[row] for row in rows]


def _pair(dataset: PairedDataset, row: int) -> Row:
    items = zip(dataset.items.values(), dataset.links[row], strict=True)
    return {one.modality: one.describe(item) for one, item in items}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    config = bench_config(read_toml(METHODS), args.data.resolve())
    args.out.mkdir(parents=True, exist_ok=True)
    for paired in config.sets:
        if paired.name in SETS:
            rows = list(pool(config, paired))
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (args.out / f"{paired.name}.jsonl").write_text(text, encoding="utf-8")
            count = {
                name: sum(r["split"] == name for r in rows) for name in ("train", "validation")
            }
            print(
                f"{paired.name}: {count['train']:,} to fit on, {count['validation']:,} to choose on"
            )


if __name__ == "__main__":
    main()
