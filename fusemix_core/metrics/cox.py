"""Cox's partial likelihood, differentiable; ties as Breslow's."""

from __future__ import annotations

import torch
from torch import Tensor


def partial_likelihood(
    risk: Tensor, time: Tensor, event: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The negative log partial likelihood per event, a scalar; 0 if there is no event.

    Each event's row is compared with the rows whose time is that or later: minus the log of its
    share of their exp(risk). O(n log n).

    Args:
        risk: float `[n]`, the log risks.
        time: `[n]`, of the event or of the last time a row was seen.
        event: bool `[n]`.
        weight: `[n]` of the rows, in the sums over those at risk as well; all alike if None.
    """
    if weight is not None:
        kept = weight > 0
        risk, time, event, weight = risk[kept], time[kept], event[kept], weight[kept]
    weight = torch.ones_like(risk) if weight is None else weight.to(risk)
    order = time.argsort(descending=True, stable=True)
    risk, time, event, weight = risk[order], time[order], event[order], weight[order]
    at_risk = (risk + weight.log()).logcumsumexp(dim=0)
    # A row's risk set ends with the last row of its own time.
    last = torch.searchsorted(-time, -time, right=True) - 1
    lost = torch.where(event, (at_risk[last] - risk) * weight, 0.0)
    total = (weight * event).sum()
    return lost.sum() / total.clamp(min=torch.finfo(risk.dtype).tiny)
