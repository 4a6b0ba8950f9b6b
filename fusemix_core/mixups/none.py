"""The `none` mixup: batches as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix_core.interfaces import Batch, Mixup


class NoMixup(Mixup):
    """Leaves every batch unchanged and draws nothing."""

    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        return batch

    def sources(self, present: Tensor) -> tuple[Tensor, ...]:
        return (torch.arange(len(present)),)
