"""What the device can do at best: copies and matrix products."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from benchmarks.gpu.case import Case, Jobs
from benchmarks.harness import Row

TYPES = {
    "float32": (torch.float32, False),
    "TF32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "float64": (torch.float64, False),
}


def jobs(case: Case) -> Jobs:
    yield "copy", partial(copy, case)
    for name in TYPES:
        yield name, partial(product, case, name)
    yield "to the device", partial(upload, case)


def copy(case: Case) -> Iterable[Row]:
    source = torch.zeros(case.size(2**31, 2**20), dtype=torch.uint8, device=case.device)
    target = torch.empty_like(source)
    found = case.timed(lambda: target.copy_(source))
    yield Row("copy, read and written", 2 * len(source) / found.seconds / 1e12, "TB/s")


def product(case: Case, name: str) -> Iterable[Row]:
    """A square product; 4,096 in float64, which some cards do slowly."""
    dtype, tf32 = TYPES[name]
    side = case.size(4096 if dtype == torch.float64 else 8192, 256)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        x, y = (torch.randn(side, side, device=case.device).to(dtype) for _ in range(2))
        found = case.timed(lambda: x @ y, repeats=5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    rate = 2 * side**3 / found.seconds / 1e12
    yield Row(f"product, {name}", rate, "TFLOP/s", details={"side": side})


def upload(case: Case) -> Iterable[Row]:
    """From main memory, pinned and not."""
    size = case.size(2**30, 2**20)
    target = torch.empty(size, dtype=torch.uint8, device=case.device)
    for pinned in (True, False):
        if pinned and not case.cuda:
            continue
        source = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)
        found = case.timed(lambda source=source: target.copy_(source), repeats=3, warmups=1)
        how = "pinned" if pinned else "pageable"
        yield Row(f"from {how} memory to the device", size / found.seconds / 1e9, "GB/s")
