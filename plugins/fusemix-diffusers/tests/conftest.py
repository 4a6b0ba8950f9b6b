"""Tiny random pipelines in diffusers' layout, each built once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fusemix_diffusers.tiny import save_kandinsky


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
