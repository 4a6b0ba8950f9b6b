"""Shared by the tests of fusemix-hf: tiny models saved in hub layout, and loading by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from fusemix_hf import fusemix_encoders
from fusemix_hf.tiny import character_tokenizer, seeded
from PIL import Image
from transformers.utils import logging

from fusemix_core.data.media import Audio
from fusemix_core.registry import Registry

REVISION = "0123456789abcdef0123456789abcdef01234567"
CPU = torch.device("cpu")
logging.disable_progress_bar()


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


@pytest.fixture
def load(registry) -> Callable[..., Any]:
    """The encoder `hf:tiny@FOLDER`, or that of a name, called `modality`."""

    def load(
        source: Path | str, modality: str | None = None, dtype: torch.dtype = torch.float32
    ) -> Any:
        name = source if isinstance(source, str) else f"hf:tiny@{source}"
        spec = registry.encoder(name, modality)
        return registry.target_of(spec).load(spec, CPU, dtype)

    return load


@pytest.fixture
def save(tmp_path) -> Callable[..., Any]:
    """Saves the model that `make` gives, and its processors; (folder, model in eval mode)."""

    def save(make: Callable[[], Any], *processors: Any) -> tuple[Path, Any]:
        model = seeded(make).eval()
        model.save_pretrained(tmp_path / "model")
        for processor in processors:
            processor.save_pretrained(tmp_path / "model")
        return tmp_path / "model", model

    return save


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Puts a model into a hub's cache on disk as org/name, to be had offline; its folder there.

    With `branch`, it is what `main` is.
    """
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def hub(folder: Path, *, branch: bool = True) -> Path:
        repo = cache / "models--org--name"
        shutil.copytree(folder, repo / "snapshots" / REVISION)
        if branch:
            (repo / "refs").mkdir()
            (repo / "refs" / "main").write_text(REVISION)
        return repo / "snapshots" / REVISION

    return hub


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return ["A dog runs.", "x", "", "Two cats sleep on a warm red sofa.", "word " * 30]


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(40, 60), (32, 32), (90, 30), (5, 3), (1, 1)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]


@pytest.fixture(scope="session")
def clips() -> list[Audio]:
    random = np.random.default_rng(0)
    lengths = [8_000, 3_000, 8_000, 5_555, 401]
    return [Audio(random.uniform(-1, 1, n).astype(np.float32), 16_000) for n in lengths]


@pytest.fixture(scope="session")
def tokenizer():
    return character_tokenizer()
