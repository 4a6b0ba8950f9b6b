"""Measures `fusemix fuse` on labelled sets by five folds, and writes docs/fusion.md.

python -m benchmarks.fusion --data DATA             # all sets
python -m benchmarks.fusion --data DATA gbmlgg kirc # some
python -m benchmarks.fusion --speed                 # 5,000 rows of three modalities
python -m benchmarks.fusion --data DATA --lego      # what MM-Lego claims
python -m benchmarks.fusion                         # only the page
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fusion.page import write
from benchmarks.fusion.sets import SETS

RESULTS = Path(__file__).parents[1] / "results" / "fusion"
FOLDS = 5
_KEPT = (
    "task", "folds", "fuser", "single", "verdict", "gain", "candidates", "shares", "combinations",
    "by_missing", "conformal", "doubtful",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; all by default")
    parser.add_argument("--data", type=Path, help="the folder of the sets")
    parser.add_argument("--speed", action="store_true", help="time the fits of generated rows")
    parser.add_argument("--lego", action="store_true", help="measure only what MM-Lego claims")
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if args.lego:
        from benchmarks.fusion.lego import measure as measure_lego

        keep("lego", measure_lego(args.data))
    elif args.data is not None:
        for name in args.sets or SETS:
            keep(name, measured(name, args.data))
            print(f"{name}: done", flush=True)
    if args.speed:
        from benchmarks.fusion.speed import measure

        keep("speed", measure())
    write(RESULTS)


def keep(name: str, results: dict[str, Any]) -> None:
    """Write results/fusion/NAME.json."""
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


def measured(name: str, data: Path) -> dict[str, Any]:
    """The results of a set, without what names this machine."""
    from fusemix_core import fuse

    one = SETS[name](data)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        done = fuse(
            one.encoders, one.data, **one.target, **one.more, folds=FOLDS, out=Path(folder) / "run"
        )
    results = {key: done.results[key] for key in _KEPT}
    rows = sum(done.results["splits"].values())
    return {"rows": rows, "cpu_seconds": round(time.process_time() - began, 1), **results}


if __name__ == "__main__":
    main()
