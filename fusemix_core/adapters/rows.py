"""Adapters at work: latents in the form they take, embeddings of a table's items."""

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
from fusemix_core.numerics import exact

ROWS, VALUES = 8192, 1 << 26
"""Rows that are embedded at a time, and how many numbers these may contain together."""


@exact()
@torch.no_grad()
def embed_rows(
    adapter: Adapter,
    table: LatentTable,
    ids: Tensor,
    device: torch.device | str = "cpu",
    out: torch.device | str | None = None,
) -> Tensor:
    """Unit-norm embeddings of a table's items.

    Args:
        adapter: on `device`, in eval mode.
        table: the latents of the items.
        ids: int64 `[n]`, which items.
        device: where to embed.
        out: where the embeddings go, chunk by chunk; by default they stay on `device`.

    Returns:
        `[n, d]`, or `[0, 0]` for no items.
    """
    out = device if out is None else out
    size = max(1, min(ROWS, VALUES // table.dim))
    parts = [
        normalize(adapter(_taken(adapter, table, part).to(device)), dim=1).to(out)
        for part in ids.split(size)
        if len(part)
    ]
    return torch.cat(parts) if parts else torch.empty(0, 0, device=out)


def _taken(adapter: Adapter, table: LatentTable, ids: Tensor) -> Tensor | Padded:
    return as_tokens(table.rows(ids)) if takes_tokens(adapter) else rows_of(table, ids)


def for_adapters(pairs: PairedLatents, adapters: Mapping[str, Adapter]) -> PairedLatents:
    """The pairs, whose batches contain latents in the form that each modality's adapter takes."""
    return pairs.with_tokens(m for m, adapter in adapters.items() if takes_tokens(adapter))


@torch.no_grad()
def width_of(adapter: Adapter, dim_in: int) -> int:
    """The width of the embeddings that an adapter gives."""
    like = next(iter(adapter.state_dict().values()), torch.zeros(()))
    dtype = like.dtype if like.is_floating_point() else torch.float32
    ones = torch.ones(2, dim_in, dtype=dtype, device=like.device)
    return adapter(input_of(adapter, ones)).shape[1]
