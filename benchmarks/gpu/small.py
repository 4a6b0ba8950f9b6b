"""Steps of linear adapters on small batches, which starting kernels may cost more than work."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from benchmarks.gpu.case import Case, Jobs
from benchmarks.gpu.forms import COMPILED, FLOAT32, Form
from benchmarks.gpu.step import stepper
from benchmarks.harness import Row
from fusemix_core.config import Part


def jobs(case: Case) -> Jobs:
    for batch in (32,) if case.quick else (256, 4096):
        for form in (FLOAT32, COMPILED):
            yield f"{batch:,}, {form.name}", partial(measured, case, batch, form)


def measured(case: Case, batch: int, form: Form) -> Iterable[Row]:
    found = case.timed(stepper(case, form, Part("linear"), batch), 30, 3)
    yield Row(f"linear adapters, {batch:,} pairs, {form.name}", found.ms, "ms")
