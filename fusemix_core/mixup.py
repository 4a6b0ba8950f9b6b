"""What a mixup is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fusemix_core.batch import Batch


class Mixup(ABC):
    """Augments a batch of latents: one lambda and one pairing of rows for all modalities."""

    rows_per_pair: int = 1
    """How many rows of data make one row for the objective (2 if the batch is halved)."""

    @abstractmethod
    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        """The augmented batch. Draws from `generator` (on the CPU) only.

        `progress` is the share of training done, 0 ≤ progress < 1, for scheduled options.
        """

    def sources(self, present: Tensor) -> tuple[Tensor, ...] | None:
        """Which rows each mixed row is made of, if that is known without a draw.

        Several processes then read and mix their own rows only. A class that says so makes its rows
        by `batch.mixed(how, *sources)`, where `how` mixes each row by itself, or gives the batch
        back as it is. It draws the same numbers whatever rows there are.

        Args:
            present: bool CPU `[n, K]`, the modalities that each row of the batch has.

        Returns:
            For each source of a mixed row the rows of the batch, int64 CPU `[m]`. None, the
            default, if the mixup needs the whole batch: each process then reads and mixes it.
        """
        return None


def sources_of(mixup: Mixup, present: Tensor) -> tuple[Tensor, ...] | None:
    """What `mixup.sources` says, unless a subclass has overridden `__call__` and not `sources`."""
    says, mixes = (_defines(type(mixup), name) for name in ("sources", "__call__"))
    return mixup.sources(present) if issubclass(says, mixes) else None


def _defines(kind: type, name: str) -> type:
    return next(c for c in kind.__mro__ if name in vars(c))
