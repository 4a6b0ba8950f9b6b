"""The `lion` optimiser: the sign of a momentum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch

from fusemix_core.optimisers.betas import checked


class Lion(torch.optim.Optimizer):
    """p ← p (1 - lr · decay) - lr · sign(β₁ m + (1 - β₁) g), m ← β₂ m + (1 - β₂) g (Chen et al.,
    2023, arXiv 2302.06675). Every entry moves by lr: it takes a tenth of AdamW's, and ten times its
    decay."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        lr: float,
        *,
        betas: Sequence[float] = (0.9, 0.99),
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": checked(betas), "weight_decay": 0.0})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (beta, kept), lr = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"]
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(momentum.lerp(p.grad, 1 - beta).sign_(), alpha=-lr)
                momentum.lerp_(p.grad, 1 - kept)
        return loss
