"""Results on disk: one JSON file a benchmark, with the machine it ran on."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.harness import Bar, Row

RESULTS = Path(__file__).parent / "results"


def load(name: str) -> ModuleType:
    """The module of a benchmark."""
    return importlib.import_module(f"benchmarks.{name}")


def save(name: str, rows: list[Row], threads: int) -> None:
    RESULTS.mkdir(exist_ok=True)
    content = {
        "machine": {**machine(), "threads": threads},
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read(name: str) -> tuple[dict[str, Any], list[Row]] | None:
    """(machine, rows) of the kept result, None where there is none."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    rows = [Row(**{**r, "bar": Bar(**r["bar"]) if r["bar"] else None}) for r in content["rows"]]
    return content["machine"], rows


def machine() -> dict[str, Any]:
    """The machine in words and numbers, and the versions that decide its speed."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    """Its model, and the widest vector instructions torch uses."""
    import torch

    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = models[0] if models else model
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def print_row(row: Row, judged: bool = True) -> None:
    """Print a row in a line; its bar only if it is `judged`."""
    text = f"  {row.name:44} {row.value:10.4g} {row.unit:8}"
    if row.ratio is not None:
        text += f" {row.ratio:8.3f} x {row.reference}"
    if row.bar is not None and judged:
        text += f"   bar {row.bar}: {verdict(row)}"
    print(text, flush=True)


def verdict(row: Row) -> str:
    """Whether the bar is met: a missed one is said."""
    return "met" if row.bar.met(row.ratio) else "MISSED"
