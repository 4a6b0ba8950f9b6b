"""Tiny random pipelines in diffusers' layout, each built once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fusemix_diffusers.tiny import save_ip_adapter, save_kandinsky, save_stable


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads spin more than they compute, on networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def kandinsky(tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("kandinsky")
    pipeline = save_kandinsky(folder)
    (folder / "generator.json").write_text('{"space": "minilm", "norm": "unit", "steps": 4}')
    return folder, pipeline


@pytest.fixture(scope="session")
def stable(tmp_path_factory) -> dict[str, tuple[Path, Any]]:
    """Stable Diffusion, SDXL (both with an IP-Adapter) and Stable unCLIP: folder and pipeline."""
    kinds = {
        "sd": "StableDiffusionPipeline",
        "xl": "StableDiffusionXLPipeline",
        "unclip": "StableUnCLIPImg2ImgPipeline",
    }
    found = {}
    for name, kind in kinds.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = folder, save_stable(folder, kind=kind)
        if name != "unclip":
            save_ip_adapter(folder, width=64 if name == "xl" else 32)
    return found
