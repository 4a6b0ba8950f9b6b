"""How large a kernel map is, by the device that fits it."""

import pytest
import torch

from fusemix_core.aligners import scale
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.scale import LANDMARKS, SCALES, Scale, memory_of, scale_for
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents

GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("gigabytes", "modalities", "landmarks"),
    [(140, 2, 16_384), (40, 2, 16_384), (24, 2, 8_192), (8, 2, 4_096), (4, 2, 4_096)]
    + [(140, 5, 16_384), (80, 5, 8_192), (40, 5, 8_192), (24, 5, 4_096)],
)
def test_a_larger_gpu_has_a_larger_kernel(monkeypatch, gigabytes, modalities, landmarks):
    monkeypatch.setattr(scale, "memory_of", lambda device: gigabytes * 10**9)
    found = scale_for(GPU, modalities)
    assert found.landmarks == landmarks
    assert found.bytes(modalities) <= gigabytes * 10**9 / 2 or found == SCALES[-1]


def test_a_cpu_has_what_it_always_had():
    assert scale_for(torch.device("cpu"), 2) == Scale(LANDMARKS, 100_000)
    assert memory_of(torch.device("cpu")) == memory_of(torch.device("mps")) == 0


def test_options_win_over_the_device(monkeypatch):
    monkeypatch.setattr(scale, "memory_of", lambda device: 140 * 10**9)
    tables = {m: ResidentLatents(torch.randn(3, 2)) for m in ("image", "text")}
    pairs = PairedLatents(tables, torch.arange(3)[:, None].repeat(1, 2))

    def most(**options):
        return CCAAligner(**options).most(pairs, FitContext())

    assert most() == Scale(16_384, 1_000_000)
    assert most(landmarks=500) == Scale(500, 1_000_000)
    assert most(landmarks=500, kernel_pairs=70) == Scale(500, 70)
