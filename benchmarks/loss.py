"""The contrastive loss, forward and backward, against its matrix products alone.

    python benchmarks/loss.py                  # time, in ratios of interleaved runs
    python benchmarks/loss.py --memory 65536   # peak memory of each form, in processes of their own

`products` are the three (four) matrix products that keeping (making again) the similarities takes;
`two matrices` is the form that makes both similarity matrices and calls cross_entropy on each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fusemix_core.objectives.tiles import none_excluded, two_way_logsumexp

KEPT, MADE_AGAIN, TWO = "kept", "made again", "two matrices"


class Case:
    """A batch of B pairs of unit rows `[B, D]` and a temperature, with gradients."""

    def __init__(self, batch: int, width: int, temperature: float) -> None:
        torch.manual_seed(0)
        self.x = normalize(torch.randn(batch, width), dim=1)
        self.y = normalize(self.x + 0.06 * torch.randn(batch, width), dim=1).requires_grad_()
        self.x.requires_grad_()
        self.temperature = torch.tensor(temperature, requires_grad=True)

    def step(self, form: str) -> None:
        """One loss and its gradients."""
        self.x.grad = self.y.grad = self.temperature.grad = None
        self.two_matrices() if form == TWO else self.tiled(1 << 40 if form == KEPT else 0)

    def tiled(self, kept_bytes: int) -> None:
        a = self.x / self.temperature
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


def times(case: Case, repeats: int) -> None:
    forms = {
        "three products": case.products(3),
        "four products": case.products(4),
        **{form: (lambda form=form: case.step(form)) for form in (KEPT, MADE_AGAIN, TWO)},
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    for name, of in (
        (KEPT, "three products"),
        (MADE_AGAIN, "four products"),
        (TWO, KEPT),
    ):
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[of], strict=True))
        print(f"{name:12} {statistics.median(seconds[name]):6.2f} s = {ratio:.3f} x {of}")


def memory(batch: int, width: int, temperature: float, forms: list[str]) -> None:
    for form in forms:
        command = [sys.executable, __file__, "--form", form, "--batch", str(batch)]
        command += ["--width", str(width), "--temperature", str(temperature)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{form:12} {done.stdout.strip()} MB beyond the rows")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.07)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", type=int, metavar="BATCH", help="measure memory at this batch")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        # Beyond a few ten thousand rows the other forms would not fit.
        forms = [MADE_AGAIN] if args.memory > 16384 else [KEPT, MADE_AGAIN, TWO]
        memory(args.memory, args.width, args.temperature, forms)
        return
    case = Case(args.batch, args.width, args.temperature)
    if args.form:
        Case(64, args.width, args.temperature).step(args.form)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        case.step(args.form)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    else:
        times(case, args.repeats)


if __name__ == "__main__":
    main()
