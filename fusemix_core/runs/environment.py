"""What a run ran on: Python, machine, packages, plugins. Kept in the run folder and the report."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from fusemix_core.versions import installed_version, version

PACKAGES = (
    "numpy",
    "torch",
    "safetensors",
    "pillow",
    "soundfile",
    "soxr",
    "pyarrow",
    "huggingface-hub",
    "transformers",
    "timm",
    "sentence-transformers",
    "ctranslate2",
    "datasets",
)
"""Distributions whose version may change a result; those that are not installed are left out."""


def environment() -> dict[str, Any]:
    """Plain data, keys: fusemix, python, platform, cpu, cpus, gpus, cuda, packages, plugins.

    No user name, host name or path is in it, so that a report can be handed on.
    """
    import torch

    from fusemix_core.registry import CORE, registry

    registry.load()
    cuda = torch.cuda.is_available()
    return {
        "fusemix": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
        "cuda": torch.version.cuda if cuda else None,
        "packages": {name: v for name in PACKAGES if (v := installed_version(name))},
        "plugins": {p.dist: p.version for p in registry.plugins if p.dist != CORE},
    }


def _cpu_name() -> str:
    """The processor's name; `platform.processor` is empty on most Linux."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
