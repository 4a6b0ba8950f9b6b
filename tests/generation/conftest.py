"""Fused models of toys whose text is fixed, and the toy generator that is conditioned by it."""

import numpy as np
import pytest
import torch
from field import Field
from fused_toys import TOYS, info

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.fused import FusedModel
from fusemix_core.registry import registry
from fusemix_core.scorers.cosine import CosineScorer


@pytest.fixture(autouse=True)
def toys(own_registry):
    """The toys by their registered names."""
    for toy in (*TOYS.values(), Field):
        registry.add(toy)


@pytest.fixture
def fused():
    """Builds a model of these modalities, whose text is fixed unless `fixed` says otherwise."""

    def build(*modalities, fixed="text", **infos):
        torch.manual_seed(0)
        names = modalities or ("text", "audio")
        encoders = {m: infos.get(m) or info(m) for m in names}
        width = encoders[fixed or "text"].dim
        adapters = {
            m: IdentityAdapter(i.dim, width) if m == fixed else LinearAdapter(i.dim, width)
            for m, i in encoders.items()
        }
        return FusedModel(adapters, encoders, CosineScorer(), device="cpu", name="runs/toy")

    return build


@pytest.fixture
def sound(tmp_path):
    """Writes a WAV file: a tone, or silence at 0 Hz."""
    import soundfile

    def write(hertz, name=None):
        wave = np.sin(2 * np.pi * hertz * np.arange(4000) / 8000).astype(np.float32)
        path = tmp_path / (name or f"{hertz}.wav")
        soundfile.write(path, wave, 8000)
        return str(path)

    return write
