"""What every user of adapters does with them: items in, embeddings out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.interfaces import (
    Adapter,
    LatentTable,
    Padded,
    PairedLatents,
    as_tokens,
    input_of,
    rows_of,
    takes_tokens,
)

_CHUNK, CHUNK_VALUES = 8_192, 1 << 26
"""Items that are embedded at a time, and how many numbers their latents may hold together."""


@torch.no_grad()
def embed_items(
    adapter: Adapter, table: LatentTable, ids: Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Unit-norm embeddings `[len(ids), d]` of a table's items, on `device`, in chunks."""
    size = max(1, min(_CHUNK, CHUNK_VALUES // table.dim))
    parts = [
        normalize(adapter(_taken(adapter, table, part).to(device)), dim=1, eps=1e-12)
        for part in ids.split(size)
        if len(part)
    ]
    return torch.cat(parts) if parts else torch.empty(0, 0, device=device)


def _taken(adapter: Adapter, table: LatentTable, ids: Tensor) -> Tensor | Padded:
    return as_tokens(table.rows(ids)) if takes_tokens(adapter) else rows_of(table, ids)


def for_adapters(pairs: PairedLatents, adapters: Mapping[str, Adapter]) -> PairedLatents:
    """The pairs, whose batches hold latents in the form that each modality's adapter takes."""
    return pairs.with_tokens(m for m, adapter in adapters.items() if takes_tokens(adapter))


@torch.no_grad()
def width_of(adapter: Adapter, dim_in: int) -> int:
    """The width of the embeddings that an adapter gives."""
    return adapter(ones(adapter, 2, dim_in)).shape[-1]


def ones(adapter: Adapter, count: int, dim_in: int) -> Tensor | Padded:
    """Latents of `count` items, all ones, that the adapter takes: on its device, of its dtype."""
    like = next(iter(adapter.parameters()), torch.zeros(()))
    rows = torch.ones(count, dim_in, dtype=like.dtype, device=like.device)
    return input_of(adapter, rows) if takes_tokens(adapter) else rows
