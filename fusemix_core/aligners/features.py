"""What closed forms see of a modality: standardised latents, or features of their kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix_core.adapters.kernel import LINEAR, KernelAdapter, kernel
from fusemix_core.interfaces import PairedLatents, rows_of

_SAMPLE = 8_192
"""Training items that power, centre and scale are taken from."""

_PANEL = 512
"""Columns of the landmarks' similarities that are taken at a time, and their transpose copied."""

LEAST_RIDGE = 1e-6
"""Of features whose mean square norm is about 1: keeps a modality that never varies solvable."""

_JITTER = 1e-3
"""On the kernel's diagonal of 1: keeps copies of an item, and rounding, from breaking its factor.
Ridges count in the number of pairs times this diagonal's variance: a thousand times as much."""


def prepared_adapter(
    train: PairedLatents,
    modality: str,
    dim: int,
    landmarks: int,
    seed: int,
    device: torch.device,
    linear: float = LINEAR,
    like: KernelAdapter | None = None,
    root: bool = True,
) -> KernelAdapter:
    """An adapter to `dim` without a map yet, with `landmarks` of its training items or all.

    Power, centre and scale are those of `like`, if given, instead of a sample's. `root`: whether
    the power may be the square root.
    """
    table, count = train.tables[modality], len(train.linked(modality))
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not used
        adapter = KernelAdapter(table.dim, dim, landmarks=min(landmarks, count), linear=linear)
    least = landmarks if like is not None else max(_SAMPLE, landmarks)
    adapter.prepare(sample(train, modality, seed, least), like, root=root)
    return adapter.to(device).eval()


def sample(train: PairedLatents, modality: str, seed: int, most: int = _SAMPLE) -> Tensor:
    """Latents of training items, drawn by the seed: float32 on the CPU, `[at most most, d]`."""
    ids = train.linked(modality)
    generator = torch.Generator().manual_seed(seed)
    some = ids[torch.randperm(len(ids), generator=generator)[:most]]
    return rows_of(train.tables[modality], some).cpu().float()


def kernel_norm(adapter: KernelAdapter) -> Tensor | None:
    """k(landmarks, landmarks) `[m, m]`, by which αᵀ K α is the squared norm of the function with
    the weights α; None without landmarks (it would be αᵀ α)."""
    landmarks = adapter.landmarks
    if not len(landmarks):
        return None
    values = landmarks.new_empty(len(landmarks), len(landmarks))
    for start in range(0, len(landmarks), _PANEL):
        own = slice(start, start + _PANEL)
        part = kernel(landmarks[own], landmarks[start:], adapter.linear)
        values[own, start:], values[start:, own] = part, part.T
    values.diagonal().copy_(1 + _JITTER + adapter.linear * landmarks.square().sum(1))
    return values


def variance_of(norm: Tensor) -> float:
    """The mean squared distance of the landmarks from their mean, in the kernel's own norm."""
    return (norm.diagonal().double().mean() - norm.double().mean()).item()
