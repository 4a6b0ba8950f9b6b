"""The embeddings of the items that a split links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fusemix_core.adapters.rows import embed_rows
from fusemix_core.data.facts import Fact
from fusemix_core.interfaces import Adapter, PairedLatents


@dataclass
class SplitEmbeddings:
    """The unit-norm embeddings of the items that a split links, numbered from 0.

    Attributes:
        embeddings: modality → float32 CPU `[n, d]`.
        links: int64 `[m, K]` into these.
        ids: modality → int64 `[n]`, the numbers that the items have in the dataset.
        facts: name → `Fact` of the rows of `links`.
        device: where they were embedded, and may be compared.
    """

    embeddings: dict[str, Tensor]
    links: Tensor
    ids: dict[str, Tensor]
    facts: dict[str, Fact] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@torch.inference_mode()
def embed_split(
    adapters: Mapping[str, Adapter], pairs: PairedLatents, device: torch.device, most: int = 0
) -> SplitEmbeddings:
    """Embed each item linked in `pairs` once.

    With `most`, of each modality an even sample of that many items; links and facts are then left
    out.
    """
    embeddings, items, columns = {}, {}, []
    for column, (modality, table) in enumerate(pairs.tables.items()):
        ids = pairs.linked(modality)
        if most and len(ids) > most:
            ids = ids[torch.linspace(0, len(ids) - 1, most).round().long()]
        adapter = adapters[modality].to(device).eval()
        embeddings[modality] = embed_rows(adapter, table, ids, device, out="cpu").float()
        items[modality] = ids
        if not most:
            own = pairs.links[:, column]
            columns.append(torch.where(own < 0, -1, torch.searchsorted(ids, own.clamp(min=0))))
    if most:
        links = torch.zeros(0, len(items), dtype=torch.long)
        return SplitEmbeddings(embeddings, links, items, device=device)
    links = torch.stack(columns, dim=1)
    return SplitEmbeddings(embeddings, links, items, dict(pairs.facts), device)
