"""Embedding the items of a table by an adapter, a chunk of rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.paired import LatentTable

ROWS, VALUES = 8192, 1 << 26
"""Rows that are embedded at a time, and how many numbers these may hold together."""


@torch.no_grad()
def embed_rows(
    adapter: nn.Module,
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
        normalize(adapter(table.rows(part).to(device)), dim=1).to(out)
        for part in ids.split(size)
        if len(part)
    ]
    return torch.cat(parts) if parts else torch.empty(0, 0, device=out)
