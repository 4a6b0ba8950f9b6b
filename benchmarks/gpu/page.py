"""The section of docs/benchmarks.md about GPUs, from benchmarks/results/gpu.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import BUDGET, SECTIONS
from benchmarks.harness import Bar, Row
from benchmarks.results import RESULTS, verdict

KEPT = RESULTS / "gpu.json"
ABOUT = f"""
`make gpu` measures one GPU in six minutes: each part runs in a process of its own for a limited
time, and every figure is written to `benchmarks/results/gpu.json` as soon as it is known. If a
part fails, hangs or finds no time left of the {BUDGET:.0f} seconds, the others still run.
`python -m benchmarks gpu --quick` runs every line on a CPU. What is measured, and the goals, are in
[decision 25](decisions/0025-what-a-gpu-is-measured-by.md).
"""
NOT_YET = "Not measured yet: no result of `make gpu` is in the repository."
SHOWN = {
    "peak_gb": "{:.2g} GB",
    "tflops_of_four_products": "{:.3g} TFLOP/s of its four products",
    "hours_of_5_million_pairs": "{:.2g} h for 5 million pairs and 500 epochs",
    "gb_per_second_as_float16": "{:.3g} GB/s as float16",
    "recall_at_1": "R@1 {:.1%}",
}
"""Details of a row that the page has room for."""


def gpu_section(path: Path = KEPT) -> list[str]:
    """The lines of the section."""
    lines = ["## On a GPU", "", ABOUT.strip(), ""]
    if not path.exists():
        return [*lines, NOT_YET, ""]
    content = json.loads(path.read_text())
    for section in SECTIONS:
        lines += [f"### {section.title}", "", *_section(section.name, content), ""]
    return [*lines, _machine(content), ""]


def _section(name: str, content: Mapping[str, Any]) -> list[str]:
    rows = [row for row in content["rows"] if row["section"] == name]
    found = content["sections"].get(name, {"state": "not run"})
    lines = []
    if rows:
        lines += ["| what | measured | goal | | more |", "|---|---|---|---|---|"]
        lines += [_row(row) for row in rows]
    notes = [f"{one['failed']}: {one['error']}" for one in found.get("failed", [])]
    if found["state"] != "done":
        notes.append(f"This part was not finished: {found['state']}.")
    return [*lines, *([""] if lines and notes else []), *(f"Not measured: {n}" for n in notes)]


def _row(kept: Mapping[str, Any]) -> str:
    fields = {k: v for k, v in kept.items() if k != "section"}
    row = Row(**{**fields, "bar": Bar(**fields["bar"]) if fields["bar"] else None})
    goal = met = ""
    if row.bar:
        goal, met = f"{row.bar} x {row.reference}", f"{row.ratio:.3g}: {verdict(row)}"
    details = [text.format(row.details[k]) for k, text in SHOWN.items() if row.details.get(k)]
    return f"| {row.name} | {row.value:.4g} {row.unit} | {goal} | {met} | {', '.join(details)} |"


def _machine(content: Mapping[str, Any]) -> str:
    machine = content["machine"]
    gpu = machine.get("gpu", "no GPU: a rehearsal")
    return (
        f"{gpu}, {machine.get('gpu_memory_gb', '?')} GB; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GB; torch {machine['torch']}, CUDA "
        f"{machine.get('cuda')}; {content['began']}."
    )
