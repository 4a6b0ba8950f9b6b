"""`mlp`: a network on the sum of linear maps of the modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from fusemix_core.config import Training
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.modules import Modules


class MlpFuser(TrainedFuser[Tensor]):
    """Standardises each modality, sums a normalised linear map of each, and adds one residual
    block. A modality that is missing adds a vector that is learnt instead.

    Args:
        inputs, outputs, mix, drop, training: as in `TrainedFuser`.
        width: of the sum.
        dropout: of the sum, and inside the block.

    Example:
        MlpFuser.fit(train, validation, task, FitContext(), width=128).fuser
    """

    settings: ClassVar[Training] = replace(TrainedFuser.settings, lr=1e-3)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        width: int = 256,
        dropout: float = 0.3,
        mix: float = 0.4,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.norms = Modules(nn.LayerNorm(width) for _ in inputs)
        self.absent = nn.Parameter(torch.zeros(len(inputs), width))
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    def raw(self, latents: Mapping[str, Tensor], present: Tensor) -> Tensor:
        total = torch.zeros((), device=present.device)
        for k, modality in enumerate(self.inputs):
            there = present[:, k, None]
            rows = self.standards[k](latents[modality].masked_fill(~there, 0.0))
            own = self.norms[k](self.maps[k](rows))
            total = total + torch.where(there, own, self.absent[k])
        hidden = self.dropout(total)
        hidden = hidden + self.down(self.dropout(gelu(self.up(self.norm(hidden)))))
        return self.head(self.last(hidden))
