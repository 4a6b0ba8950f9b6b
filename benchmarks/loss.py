"""The exact contrastive loss, forward and backward, against its matrix products, and its memory.

python -m benchmarks.loss BATCH FORM     # the peak memory of one form, for `measure`
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from benchmarks.harness import Bar, Options, Row, interleaved, median, ratio, with_usual_memory
from fusemix_core.allocator import keep_freed_memory
from fusemix_core.objectives.tiles import none_excluded, two_way_logsumexp

TITLE = "The contrastive loss"
ABOUT = """
Symmetric InfoNCE of unit rows `[B, 512]` in float32 with all gradients, that of the temperature
(0.07) too. The similarities are made in tiles of rows: *kept* for the backward where memory allows
(three matrix products), *made again* where not (four). *Two matrices* is the form that makes both
similarity matrices and calls `cross_entropy` on each, as the original implementation does, with
memory as torch leaves it; the others have the engine's, which keeps what is freed. The references
are the products alone, into memory that is there. Peak memory is what a process of its own takes
beyond the rows and one small loss.
"""

KEPT, MADE_AGAIN, TWO = "kept", "made again", "two matrices"
WIDTH = 512
BATCH = 8192
TEMPERATURE = 0.07
GROWTH = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
LARGEST_DENSE = 16384
"""Beyond this batch only the form whose memory does not grow with its square is run."""


def measure(options: Options) -> Iterator[Row]:
    keep_freed_memory()
    batch, repeats = (1024, 3) if options.quick else (BATCH, 9)
    case = Case(batch)
    seconds = interleaved(
        {
            "its three products": case.products(3),
            "its four products": case.products(4),
            **{form: (lambda form=form: case.step(form)) for form in (KEPT, MADE_AGAIN)},
            TWO: with_usual_memory(lambda: case.step(TWO)),
        },
        repeats,
    )
    for form, reference, bar in (
        (KEPT, "its three products", Bar(1.10)),
        (MADE_AGAIN, "its four products", Bar(1.15)),
        (TWO, KEPT, Bar(3.3, at_least=True)),
    ):
        found = ratio(seconds, form, reference)
        yield Row(f"{form}, B={batch}", median(seconds[form]), "s", reference, found, bar)
    yield from memories(GROWTH[:2] if options.quick else GROWTH)


def memories(batches: Sequence[int]) -> Iterator[Row]:
    """Peak memory and time of each form by batch."""
    for batch in batches:
        dense = None
        for form in (TWO, KEPT, MADE_AGAIN):
            if batch > LARGEST_DENSE and form != MADE_AGAIN:
                continue
            peak, seconds = peak_of(batch, form)
            dense = peak if form == TWO else dense
            bar = reference = share = None
            if form != TWO and dense is not None:
                share, reference = peak / dense, "two matrices"
                bar = Bar(0.1) if form == MADE_AGAIN and batch == BATCH else None
            elif batch == 65536:
                share, reference, bar = peak / 1024, "1 GB", Bar(1.0)
            yield Row(
                f"memory, {form}, B={batch}",
                peak,
                "MB",
                reference or "",
                share,
                bar,
                {"form": form, "batch": batch, "seconds": seconds},
            )


def peak_of(batch: int, form: str) -> tuple[float, float]:
    """(peak MB beyond the rows, seconds) of one loss in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loss", str(batch), form]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    megabytes, seconds = done.stdout.split()
    return float(megabytes), float(seconds)


class Case:
    """A batch of B pairs of unit rows `[B, WIDTH]`, with gradients."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.x = normalize(torch.randn(batch, WIDTH), dim=1)
        self.y = normalize(self.x + 0.06 * torch.randn(batch, WIDTH), dim=1).requires_grad_()
        self.x.requires_grad_()
        self.temperature = torch.tensor(TEMPERATURE, requires_grad=True)

    def step(self, form: str) -> None:
        """One loss and its gradients."""
        self.x.grad = self.y.grad = self.temperature.grad = None
        self.two_matrices() if form == TWO else self.tiled(1 << 40 if form == KEPT else 0)

    def tiled(self, kept_bytes: int) -> None:
        a = self.x * self.temperature.reciprocal()
        by_row, by_column = two_way_logsumexp(a, self.y, none_excluded, kept_bytes)
        ((by_row + by_column).mean() / 2 - (a * self.y).sum(1).mean()).backward()

    def two_matrices(self) -> None:
        own = torch.arange(len(self.x))
        forward = self.x @ self.y.T / self.temperature
        back = self.y @ self.x.T / self.temperature
        ((cross_entropy(forward, own) + cross_entropy(back, own)) / 2).backward()

    def products(self, count: int) -> Callable[[], None]:
        x, y = self.x.detach(), self.y.detach()
        similar = torch.empty(len(x), len(x))
        grads: list[Tensor] = [torch.empty_like(x), torch.empty_like(y)]

        def run() -> None:
            for _ in range(count - 2):
                torch.mm(x, y.T, out=similar)
            torch.mm(similar, y, out=grads[0])
            torch.mm(similar.T, x, out=grads[1])

        return run


def plot(rows: Sequence[Row], figure) -> None:
    """Memory and time by batch."""
    memory, time = figure.subplots(1, 2)
    for form in (TWO, KEPT, MADE_AGAIN):
        own = [r.details for r in rows if r.details.get("form") == form]
        peaks = [r.value for r in rows if r.details.get("form") == form]
        batches = [d["batch"] for d in own]
        memory.loglog(batches, peaks, marker="o", label=form)
        time.loglog(batches, [d["seconds"] for d in own], marker="o", label=form)
    for axes, what in ((memory, "peak memory, MB"), (time, "seconds")):
        axes.set_xlabel("pairs a batch")
        axes.set_ylabel(what)
        axes.grid(alpha=0.3)
    memory.legend()


def main(batch: int, form: str) -> None:
    """Print the peak memory in MB and the seconds of one form."""
    import time

    torch.set_num_threads(2)
    case = Case(batch)
    Case(64).step(form)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    case.step(form)
    seconds = time.perf_counter() - start
    print(resident("VmHWM") - before, seconds)


def resident(line: str) -> float:
    """MB of this process in memory: `VmRSS` now, `VmHWM` at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
