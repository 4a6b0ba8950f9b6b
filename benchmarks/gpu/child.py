"""One section, in the process that runs it: `python -m benchmarks.gpu.child SECTION`.

Prints one JSON object a line: the machine, then each row as soon as it is measured, or why a part
of the section failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.case import Case
from fusemix_core.allocator import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="fusemix-gpu-") as scratch:
        print(json.dumps({"machine": machine(device)}), flush=True)
        for line in lines(args.section, Case(device, Path(scratch), args.quick)):
            print(json.dumps(line), flush=True)


def lines(section: str, case: Case) -> Iterator[dict[str, Any]]:
    """What a section finds, part by part; a part that fails has a line that says why."""
    for name, job in importlib.import_module(f"benchmarks.gpu.{section}").jobs(case):
        try:
            for row in job():
                yield dataclasses.asdict(row)
        except Exception as error:  # the other parts may still be measured
            text = str(error).strip().splitlines()
            yield {"failed": name, "error": f"{type(error).__name__}: {text[0] if text else ''}"}
        gc.collect()
        if case.cuda:
            torch.cuda.empty_cache()


def machine(device: torch.device) -> dict[str, Any]:
    """The device and the versions that decide its speed."""
    from benchmarks.results import machine as host

    found = host() | {"threads": torch.get_num_threads(), "device": str(device)}
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "gpu": properties.name,
        "gpu_memory_gb": round(properties.total_memory / 1e9),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "gpus": torch.cuda.device_count(),
    }


if __name__ == "__main__":
    main()
