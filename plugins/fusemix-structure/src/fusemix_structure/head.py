"""The adapter `low-rank-residual`: a linear map, and what a few dimensions add to it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import gelu

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter


class LowRankResidualAdapter(Adapter):
    """z = skip x + σ(g) · up dropout(gelu(down x)), without offsets; g is learnt.

    rank: of `down`, by default max(8, dim_out / 4). gate: σ(g) at the start. The original's default
    gate is 0, where g is minus infinity and neither `down` nor `up` ever gets a gradient; so the
    default here is a half. Raises `ConfigError` for options out of range.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        rank: int | None = None,
        gate: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        rank = max(8, dim_out // 4) if rank is None else rank
        if rank < 1 or not 0 <= gate < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"low-rank-residual can't have rank={rank}, gate={gate}, dropout={dropout}.",
                "rank is 1 or more; gate and dropout are from 0 to below 1.",
            )
        self.skip = nn.Linear(dim_in, dim_out, bias=False)
        self.down = nn.Linear(dim_in, rank, bias=False)
        self.up = nn.Linear(rank, dim_out, bias=False)
        logit = math.log(gate / (1 - gate)) if gate else -math.inf
        self.gate_logit = nn.Parameter(torch.tensor(logit))
        self.dropout = dropout

    def forward(self, latents: Tensor) -> Tensor:
        hidden = drop(gelu(self.down(latents)), self.dropout, self.training)
        return self.skip(latents) + self.gate_logit.sigmoid() * self.up(hidden)
