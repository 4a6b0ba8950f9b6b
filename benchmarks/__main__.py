"""Runs the benchmarks, keeps their results, and writes docs/benchmarks.md from them.

    python -m benchmarks --data DATA            # all; DATA holds the real datasets
    python -m benchmarks loss step --quick      # some, in a minute each; nothing is kept
    python -m benchmarks --page                 # only the page and its plots, from what is kept
    python -m benchmarks prepare --data DATA --out FOLDER   # the sets of benchmarks/scaling.toml
    python -m benchmarks gpu     # one GPU in six minutes; options of its own: benchmarks/gpu

Each benchmark is a module here with TITLE, ABOUT and `measure(options) -> Iterator[Row]`, and,
where a plot says more, `plot(rows, figure)`. It runs in a process of its own. Without --data those
that need real data are left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Options

BENCHMARKS = (
    "loss",
    "step",
    "feed",
    "closed",
    "growth",
    "selection",
    "extraction",
    "encode",
    "store",
    "index",
    "cold",
    "recall",
    "router",
    "serving",
    "rerank_cost",
)
"""In the order of the page."""


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.gpu.__main__ import main as measure_gpu

        measure_gpu(sys.argv[2:])
        return
    parser = _parser()
    args = parser.parse_args()
    if args.names == ["prepare"]:
        if args.data is None or args.out is None:
            parser.error("prepare needs --data and --out")
        from benchmarks.sets.prepare import prepare

        print(f"prepared: {', '.join(prepare(args.data, args.out)) or 'nothing'}")
        return
    if args.run:
        _run_here(args)
        return
    missed: list[str] = []
    if not args.page:
        for name in args.names or BENCHMARKS:
            command = [sys.executable, "-m", "benchmarks", name, "--run"]
            command += ["--threads", str(args.threads)]
            command += ["--data", str(args.data)] if args.data else []
            command += ["--quick"] if args.quick else []
            if subprocess.run(command, check=False).returncode:
                missed.append(name)
    if not args.quick:
        from benchmarks.page import write_page

        write_page(BENCHMARKS)
    if missed:
        sys.exit(f"These ended in an error: {', '.join(missed)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--data", type=Path, help="the folder of real datasets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small, and nothing is kept")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--out", type=Path, help="where `prepare` writes the sets")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    return parser


def _run_here(args: argparse.Namespace) -> None:
    """One benchmark in this process."""
    import torch

    from benchmarks.results import load, print_row, save

    (name,) = args.names
    torch.set_num_threads(args.threads)
    module = load(name)
    print(f"\n{module.TITLE}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="fusemix-benchmark-") as scratch:
        for row in module.measure(Options(Path(scratch), args.data, args.threads, args.quick)):
            print_row(row)
            rows.append(row)
    if not args.quick and rows:
        save(name, rows, args.threads)


if __name__ == "__main__":
    main()
