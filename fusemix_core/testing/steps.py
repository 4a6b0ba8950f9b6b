"""Steps for the checks of objectives: embeddings, and what an objective may read beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fusemix_core.data.facts import Fact
from fusemix_core.interfaces import Adapter, Padded, PairedLatents, ResidentLatents, Step

MODALITIES = ("image", "text", "audio")
ROWS, WIDTH = 16, 8

Embeddings = dict[str, Tensor]


def embeddings_of(modalities: int = 2, noise: float = 0.5, rows: int = ROWS) -> Embeddings:
    """Rows `[n, d]` of each modality: the same for all, and noise of each."""
    draw = torch.Generator().manual_seed(modalities)
    shared = torch.randn(rows, WIDTH, generator=draw)
    return {
        m: shared + noise * torch.randn(rows, WIDTH, generator=draw)
        for m in MODALITIES[:modalities]
    }


def links_of(modalities: int = 2, rows: int = ROWS, sources: int = 1) -> Tensor:
    """int64 `[n, S, K]`, every id of its own."""
    return torch.arange(rows * sources * modalities).reshape(rows, sources, modalities)


def tokens_of(embeddings: Embeddings) -> dict[str, Padded]:
    """Tokens `[n, T, d]` made of each modality's embeddings; some rows have one fewer."""
    found = {}
    for k, (modality, x) in enumerate(embeddings.items()):
        values = torch.stack([(1 + t) * x.roll(t, 1) for t in range(3 + k)], dim=1)
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        mask[:, -1] = x.detach()[:, 0] <= 0
        found[modality] = Padded(values, mask)
    return found


def latents_of(embeddings: Embeddings) -> Embeddings:
    """Latents `[n, WIDTH]` that `FirstDimensions` adapters bring near the embeddings, as data."""
    near = {m: x.detach() + 0.1 * x.detach().roll(1, 1) for m, x in embeddings.items()}
    return {m: pad(x, (0, WIDTH - x.shape[1])) for m, x in near.items()}


class FirstDimensions(Adapter):
    """The first dimensions of the latents."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.dim = dim_out

    def forward(self, latents: Tensor) -> Tensor:
        return latents[:, : self.dim]


def adapters_of(embeddings: Embeddings) -> dict[str, Adapter]:
    return {m: FirstDimensions(WIDTH, x.shape[1]) for m, x in embeddings.items()}


def step_of(embeddings: Embeddings, links: Tensor, **given: Any) -> Step:
    """A step with all that an objective may read; what isn't `given` is made of the embeddings."""
    present = (links >= 0).all(dim=1)
    latents, tokens = latents_of(embeddings), tokens_of(embeddings)
    for k, m in enumerate(embeddings):
        latents[m] = latents[m].masked_fill(~present[:, k, None], 0)
        tokens[m] = Padded(tokens[m].values, tokens[m].mask & present[:, k, None])
    made: dict[str, Any] = {
        "latents": latents,
        "tokens": tokens,
        "adapters": adapters_of(embeddings),
        "facts": facts_of(given.pop("facts", {}), links),
    }
    return Step.of(embeddings, links, **{**made, **given})


def facts_of(facts: Mapping[str, Fact], links: Tensor) -> dict[str, Tensor]:
    """Facts of the rows of links `[n, S, K]`, `[n, S, …]`: values in turn, that follow the items
    when rows are moved."""
    number = links.amax(dim=2).clamp(min=0)
    return {n: torch.from_numpy(f.values)[number % len(f)] for n, f in facts.items()}


def splits_of(
    modalities: tuple[str, ...], facts: Mapping[str, Fact]
) -> tuple[PairedLatents, PairedLatents]:
    """Training and validation pairs of the same world as `latents_of`."""
    rows = latents_of(embeddings_of(len(modalities), rows=96))
    tables = {m: ResidentLatents(rows[m]) for m in modalities}
    links = torch.arange(96)[:, None].repeat(1, len(modalities))
    facts = {name: fact.select(np.arange(96) % len(fact)) for name, fact in facts.items()}
    pairs = PairedLatents(tables, links, facts)
    return pairs.select(torch.arange(72)), pairs.select(torch.arange(72, 96))
