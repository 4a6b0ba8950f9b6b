"""Whether a cheap look and a listen find the few frames that say what a long clip is about.

    python -m benchmarks.glance --data DATA [--cache FOLDER]

DATA holds clothing10, esc10 and openstax; see `clips.py`. Figures and the picture of the page
"Audio-visual glance" come from here.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.glance.latents import read
from benchmarks.glance.measure import measured
from benchmarks.glance.picture import draw
from benchmarks.results import RESULTS, machine

COUNTS = {"train": 300, "validation": 80, "test": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of the sets; none: only the picture")
    parser.add_argument("--cache", type=Path, help="keep the latents in this folder")
    parser.add_argument("--quick", action="store_true", help="few clips, and nothing is kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "glance.json"
    if args.data is not None:
        began = time.process_time()
        counts = {name: n // 10 for name, n in COUNTS.items()} if args.quick else COUNTS
        found = measured(*read(args.data, counts, args.cache))
        spent = round(time.process_time() - began)
        content = {"machine": machine(), "cpu_seconds": spent, "clips": counts, **found}
        if args.quick:
            return
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    draw(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
