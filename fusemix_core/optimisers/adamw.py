"""The `adamw` optimiser: Adam with decoupled decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fusemix_core.optimisers.betas import checked


class AdamW(torch.optim.AdamW):
    """torch's AdamW (arXiv 1711.05101) in its fused form: one pass over the weights, where small
    batches would spend a third of a step."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        lr: float,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        fused = all(p.device.type in ("cpu", "cuda") for g in groups for p in g["params"])
        super().__init__(groups, lr=lr, betas=checked(betas), eps=eps, fused=fused)
