"""Toy paired latents: several views of the same hidden points, in a linear world with noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.interfaces import Adapter, LatentTable, PairedLatents, ResidentLatents, rows_of

DIMS = {"image": 24, "text": 16}
DIMS3 = {**DIMS, "audio": 20}
HIDDEN = 6


def all_rows(table: LatentTable) -> Tensor:
    """Every item of a table, one row each."""
    return rows_of(table, torch.arange(len(table)))


@dataclass(frozen=True)
class ToyPairs:
    """Pairs split in three. All splits share their tables, as those of a dataset do."""

    train: PairedLatents
    validation: PairedLatents
    test: PairedLatents


def toy_pairs(
    dims: Mapping[str, int] = DIMS,
    *,
    train: int = 200,
    validation: int = 40,
    test: int = 60,
    noise: float = 0.1,
    missing: float = 0.0,
    seed: int = 0,
) -> ToyPairs:
    """Pairs of latents, modality → width in `dims`, made from the same hidden points.

    missing: the share of training rows that lack one of the modalities (three or more) in turn.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = train + validation + test
    points = torch.randn(rows, HIDDEN, generator=draw)
    tables = {}
    for modality, dim in dims.items():
        view = points @ torch.randn(HIDDEN, dim, generator=draw)
        tables[modality] = ResidentLatents(view + noise * torch.randn(rows, dim, generator=draw))
    links = torch.arange(rows)[:, None].repeat(1, len(dims))
    for i in range(round(missing * train)):
        links[i, i % len(dims)] = -1
    pairs = PairedLatents(tables, links)
    parts = torch.arange(rows).split([train, validation, test])
    return ToyPairs(*(pairs.select(part) for part in parts))


@torch.no_grad()
def embeddings_of(adapters: Mapping[str, Adapter], pairs: PairedLatents) -> dict[str, Tensor]:
    """The unit-norm embeddings of the linked rows, modality → `[n, d]`."""
    latents = pairs.batch(torch.arange(len(pairs))).latents
    return {
        m: torch.nn.functional.normalize(adapters[m](x.to(_dtype(adapters[m]))), dim=1)
        for m, x in latents.items()
    }


def recall_at_1(embeddings: Mapping[str, Tensor]) -> float:
    """The share of rows whose nearest partner, over all pairs of modalities, is their own."""
    rows = list(embeddings.values())
    hits = [
        ((a @ b.T).argmax(dim=1) == torch.arange(len(a))).float().mean().item()
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i != j
    ]
    return sum(hits) / len(hits)


def _dtype(adapter: Adapter) -> torch.dtype:
    return next((p.dtype for p in adapter.parameters()), torch.float32)
