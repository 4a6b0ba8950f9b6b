"""Measure a GPU in six minutes: `python -m benchmarks gpu`, or `make gpu`.

    python -m benchmarks gpu --quick      # every line on a CPU; nothing is kept

Figures are written to benchmarks/results/gpu.json as they come, and docs/benchmarks.md at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.page import KEPT
from benchmarks.gpu.plan import BUDGET
from benchmarks.gpu.runner import run, section_command
from benchmarks.harness import Bar, Row
from benchmarks.results import print_row

NO_GPU = "There is no GPU here. `python -m benchmarks gpu --quick` runs every line on the CPU."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="small, on the CPU if there is no GPU")
    parser.add_argument("--out", type=Path, help=f"the file of figures [{KEPT.name}]")
    args = parser.parse_args(arguments)
    device = _device()
    if device == "cpu" and not args.quick:
        sys.exit(NO_GPU)
    with tempfile.TemporaryDirectory(prefix="fusemix-gpu-") as scratch:
        out = args.out or (Path(scratch) / KEPT.name if args.quick else KEPT)
        command = section_command(args.quick, device)
        tell = partial(_print, judged=device != "cpu")
        found = run(out, command, budget=args.budget, quick=args.quick, tell=tell)
    if out == KEPT:
        from benchmarks.__main__ import BENCHMARKS
        from benchmarks.page import write_page

        write_page(BENCHMARKS)
    unfinished = _summary(found)
    if unfinished:
        sys.exit(f"Not measured: {'; '.join(unfinished)}")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _print(line: dict[str, Any], judged: bool = True) -> None:
    """A line of figures; the bars are of a GPU, so a CPU isn't `judged` by them."""
    if "failed" in line:
        print(f"  {line['failed']}: FAILED: {line['error']}", flush=True)
    elif "machine" not in line:
        row = Row(**{**line, "bar": Bar(**line["bar"]) if line["bar"] else None})
        print_row(row, judged)


def _summary(found: dict[str, Any]) -> list[str]:
    """Print how the sections ended; what was not measured, and why."""
    unfinished = []
    for name, section in found["sections"].items():
        print(f"{name}: {section['state']}, {section.get('seconds', 0):.0f} s")
        if section["state"] != "done":
            print(section.get("stderr", ""), end="")
            unfinished.append(f"{name} ({section['state']})")
        unfinished += [f"{name}, {one['failed']}" for one in section.get("failed", [])]
    return unfinished


if __name__ == "__main__":
    main()
