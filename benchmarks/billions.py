"""Linear CCA of billions of pairs on several machines: what is measured here, and the arithmetic.

    python -m benchmarks.billions          # measure here, keep the result, write docs/billions.md
    python -m benchmarks.billions --page   # only the page, from what is kept

Processes of torch.distributed (gloo) each sweep a share of generated latents, as `fusemix align`
under torchrun does, sum their moments, and one of them solves. The page says what of 5 billion
pairs follows from these figures and from the stated ones of machines that nothing was measured on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

RESULT = Path(__file__).parent / "results" / "billions.json"
PAGE = Path(__file__).parents[1] / "docs" / "billions.md"
WIDTHS = (1536, 1024)
DIM = 512
ROWS, PROCESSES = 65_536, (1, 2, 4)
_PAIR = 24
"""Bytes: two links and a number in the order of the pass."""
POOL = 16_384
"""Generated items of a modality. Rows name them again and again: what a sweep costs does not depend
on how many differ."""


@dataclass(frozen=True)
class Machines:
    """What the arithmetic assumes; nothing of it was measured.

    disk, network: bytes per second of a node, each way. gpu: float32 operations per second that
    products reach. cores: of a node, each as fast as the one measured on.
    """

    pairs: int = 5_000_000_000
    nodes: int = 8
    disk: float = 5e9
    network: float = 12.5e9
    gpus: int = 1
    gpu: float = 52e12
    cores: int = 64


# -- measured here ---------------------------------------------------------------------------------


def measure(
    rows: int = ROWS,
    processes: Sequence[int] = PROCESSES,
    widths: Sequence[int] = WIDTHS,
    dim: int = DIM,
    pool: int = POOL,
    start: Any = None,
) -> dict[str, Any]:
    """Sweep the same rows with each number of processes; the first must be 1. `start`: the context
    of multiprocessing that starts them.

    Returns:
        rows, widths, dim; `sweeps`, one for each number of processes: rows a CPU second of the
        slowest process, bytes each sends into sums, seconds of these, and how far the moments are
        from those of one process (of their largest); `solve`, CPU seconds.
    """
    sweeps, wanted, solve = [], None, 0.0
    for count in processes:
        with tempfile.TemporaryDirectory(prefix="fusemix-billions-") as folder:
            given = Path(folder), rows, tuple(widths), dim, pool
            told = _in_processes(start, count, *given)
            found = torch.load(Path(folder) / "moments.pt", weights_only=True)
        wanted = wanted or found
        apart = max(
            ((found[name] - own).abs().max() / own.abs().max()).item()
            for name, own in wanted.items()
        )
        if count == 1:
            solve = told[0]["solve"]
        sweeps.append(
            {
                "processes": count,
                "rate": min(one["rows"] / one["sweep"] for one in told),
                "bytes": max(one["bytes"] for one in told),
                "sum_seconds": max(one["sum"] for one in told),
                "apart": apart,
            }
        )
    return {"rows": rows, "widths": list(widths), "dim": dim, "sweeps": sweeps, "solve": solve}


def _in_processes(start: Any, count: int, folder: Path, *arguments: Any) -> list[dict[str, Any]]:
    """What each of `count` processes reports."""
    context = start or multiprocessing.get_context("spawn")
    each = [
        context.Process(target=_child, args=(i, count, folder, *arguments)) for i in range(count)
    ]
    for one in each:
        one.start()
    for one in each:
        one.join()
    if any(one.exitcode for one in each):
        raise RuntimeError(f"processes ended with {[one.exitcode for one in each]}")
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(count)]


def _child(
    rank: int, count: int, folder: Path, rows: int, widths: Sequence[int], dim: int, pool: int
) -> None:
    """One process: its share of the sweep, the sum, and in the first of them the solution."""
    from fusemix_core.aligners.canonical import solve
    from fusemix_core.aligners.moments import moments_of
    from fusemix_core.interfaces import FitContext

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count
    )
    sums, pairs = _Sums(), generated(rows, widths, pool)
    begun = time.process_time()
    moments = moments_of(pairs, FitContext())
    told = {
        "rows": rows // count,
        "sweep": time.process_time() - begun - sums.cpu,
        "bytes": sums.bytes,
        "sum": sums.seconds,
    }
    if rank == 0:
        found = {f"mean {k}": moments.mean(k) for k in range(len(widths))}
        found |= {f"{k} {m}": moments.covariance(k, m) for k, m in ((0, 0), (0, 1), (1, 1))}
        torch.save(found, folder / "moments.pt")
        ridges = [0.01 * moments.variance(k) / width for k, width in enumerate(widths)]
        begun = time.process_time()
        solve(moments, ridges, dim)
        told["solve"] = time.process_time() - begun
    dist.barrier()
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(told))


class _Sums:
    """Counts what goes into `all_reduce`: bytes, seconds of it, and CPU seconds."""

    def __init__(self) -> None:
        self.bytes, self.seconds, self.cpu = 0, 0.0, 0.0
        real = dist.all_reduce

        def counted(value: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.bytes:
                dist.barrier()  # what the slowest sweep keeps others waiting is not the sum's
            begun, cpu = time.perf_counter(), time.process_time()
            done = real(value, *args, **kwargs)
            self.seconds += time.perf_counter() - begun
            self.cpu += time.process_time() - cpu
            self.bytes += value.numel() * value.element_size()
            return done

        dist.all_reduce = counted


def generated(rows: int, widths: Sequence[int], pool: int) -> Any:
    """Pairs of two modalities with a common cause, the same in each process."""
    from fusemix_core.interfaces import PairedLatents, ResidentLatents

    draw = torch.Generator().manual_seed(0)
    cause, tables = torch.randn(pool, 64, generator=draw), {}
    for name, width in zip(("image", "text"), widths, strict=True):
        own = cause @ torch.randn(64, width, generator=draw)
        own += torch.randn(pool, width, generator=draw)
        tables[name] = ResidentLatents(own.half())
    return PairedLatents(tables, torch.randint(pool, (rows, 1), generator=draw).repeat(1, 2))


# -- the page --------------------------------------------------------------------------------------


def products(widths: Sequence[int]) -> float:
    """Floating-point operations of a row: both squares by panels of 512 columns, and the cross."""
    from fusemix_core.aligners.moments import _PANEL

    squares = sum(
        min(start + _PANEL, width) * min(_PANEL, width - start)
        for width in widths
        for start in range(0, width, _PANEL)
    )
    return 2.0 * (squares + widths[0] * widths[1])


def arithmetic(found: dict[str, Any], on: Machines) -> list[tuple[str, str, float]]:
    """(part, how, seconds) of the fit on machines that nothing was measured on."""
    share, rate = on.pairs / on.nodes, found["sweeps"][0]["rate"]
    size, sent = 2 * sum(found["widths"]), max(one["bytes"] for one in found["sweeps"])
    flops = products(found["widths"])
    return [
        (
            "read",
            f"{size * on.pairs / 1e12:.1f} TB in float16, {on.nodes} nodes of "
            f"{on.disk / 1e9:g} GB/s",
            share * size / on.disk,
        ),
        (
            "products on GPUs",
            f"{flops * on.pairs:.2g} operations, {on.nodes * on.gpus} GPUs of {on.gpu / 1e12:g} "
            "TFLOP/s in float32",
            share * flops / (on.gpus * on.gpu),
        ),
        (
            "or on CPUs",
            f"{on.nodes} nodes of {on.cores} cores as fast as the one here",
            share / (rate * on.cores),
        ),
        (
            "sum",
            f"{sent / 1e6:.0f} MB twice over a network of {on.network / 1e9:g} GB/s",
            2 * sent / on.network,
        ),
        ("solve", "as measured here, one core", found["solve"]),
    ]


def page(found: dict[str, Any], on: Machines | None = None) -> str:
    """docs/billions.md."""
    on, machine = on or Machines(), found["machine"]
    steps = arithmetic(found, on)
    seconds = {part: took for part, _, took in steps}
    beside = seconds["sum"] + seconds["solve"]
    gpu = max(seconds["read"], seconds["products on GPUs"]) + beside
    cpu = max(seconds["read"], seconds["or on CPUs"]) + beside
    last = found["sweeps"][-1]
    machine_line = (
        f"{machine['processor']}; {machine['cores']} cores, {machine['memory_gb']} GB; torch "
        f"{machine['torch']}; {machine['date']}."
    )
    pairs, (image, text) = f"{on.pairs / 1e9:g} billion pairs", found["widths"]
    parts = [
        "# Billions of pairs",
        _text(f"""Linear CCA needs one pass over the pairs: on {on.nodes} machines {pairs} would
            take {gpu / 60:.0f} minutes with a GPU in each, and {cpu / 60:.0f} on their CPUs. **That
            is arithmetic.** What was measured, on one small machine and with generated latents: the
            rate of a core, the bytes that are summed, the equality to one process, and the
            solution. Disks, networks, GPUs and eight machines were not."""),
        "Made by `python -m benchmarks.billions` from `benchmarks/results/billions.json`.",
        "## Measured",
        _text(f"""{found["rows"]:,} pairs of widths {image:,} and {text:,}, in float16 in memory.
            Each process (gloo, one thread) sweeps its share as `fusemix align` under torchrun does.
            The rate is of CPU seconds, as the machine may be shared. The last column is the largest
            difference of a mean or covariance from one process's, as a part of its largest
            entry: sums of a few float32 numbers are exact in float64."""),
        "\n".join(
            [
                "| processes | rows per CPU second, each | summed by each | seconds of the sum "
                "| from one process |",
                "|---|---|---|---|---|",
                *(
                    f"| {one['processes']} | {one['rate']:,.0f} | {one['bytes'] / 1e6:.1f} MB "
                    f"| {one['sum_seconds']:.2f} | {one['apart']:.1e} |"
                    for one in found["sweeps"]
                ),
            ]
        ),
        _text(f"""The solution of {found["dim"]} directions takes {found["solve"]:.1f} CPU seconds.
            Neither it nor the {last["bytes"] / 1e6:.0f} MB that processes sum grow with the
            pairs."""),
        machine_line,
        "## Arithmetic",
        _text(f"""{pairs} on {on.nodes} nodes. Of this only the rate of a core and the solution were
            measured."""),
        "\n".join(
            [
                "| part | from | seconds |",
                "|---|---|---|",
                *(f"| {part} | {how} | {_seconds(took)} |" for part, how, took in steps),
            ]
        ),
        _text(f"""Reading and computing go on at the same time, so that the longer one counts:
            {gpu / 60:.1f} minutes with GPUs, {cpu / 60:.1f} without. Encoding so many items in the
            first place takes far longer. Links and the order of the pass are int64 in the memory of
            each process, {_PAIR} bytes a pair: {_PAIR * on.pairs / 1e9:,.0f} GB, which today is
            what limits the pairs of one run."""),
        "For other machines change `Machines` in `benchmarks/billions.py`.",
    ]
    return "\n\n".join(parts) + "\n"


def _text(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 100)


def _seconds(took: float) -> str:
    return f"{took:,.0f}" if took >= 10 else f"{took:.2g}"


def main() -> None:
    """Measure, unless only the page is asked for, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.billions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--page", action="store_true", help="only write the page")
    args = parser.parse_args()
    if not args.page:
        from benchmarks.results import machine

        found = {"machine": machine(), **measure(args.rows)}
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(json.loads(RESULT.read_text())))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
