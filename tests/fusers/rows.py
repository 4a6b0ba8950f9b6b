"""Labelled rows of three modalities, some of which are missing."""

import numpy as np
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Labelled
from fusemix_core.paired import PairedLatents, ResidentLatents
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress

WIDTHS = {"image": 12, "text": 7, "table": 4}


def labelled(rows=120, task="classify", missing=0.0, seed=0, groups=None):
    """(rows whose target depends on all modalities, their task)."""
    draw = torch.Generator().manual_seed(seed)
    cause = torch.randn(rows, 3, generator=draw)
    maps = {
        m: torch.randn(3, d, generator=torch.Generator().manual_seed(9)) for m, d in WIDTHS.items()
    }
    tables = {}
    for k, (m, d) in enumerate(WIDTHS.items()):
        seen = cause * torch.tensor([1.0 if j == k else 0.2 for j in range(3)])
        tables[m] = ResidentLatents(seen @ maps[m] + 0.5 * torch.randn(rows, d, generator=draw))
    links = torch.arange(rows)[:, None].repeat(1, 3)
    gaps = torch.rand(rows, 3, generator=draw) < missing
    gaps[gaps.all(dim=1), 0] = False
    links[gaps] = -1
    value = cause.sum(dim=1) + 0.3 * torch.randn(rows, generator=draw)
    if task == "classify":
        fact = Fact("class", np.digitize(value.numpy(), [-1, 1]).astype(np.int64), ("a", "b", "c"))
        made = Classify.learn({"target": fact})
    else:
        fact = Fact("number", value.numpy())
        made = Regress.learn({"target": fact})
    groups = torch.arange(rows) if groups is None else groups
    pairs = PairedLatents(tables, links)
    return Labelled(pairs, made.targets({"target": fact}), groups), made


def latents_of(rows):
    return {m: rows.latents(m) for m in rows.modalities}
