"""FuseMix for rows with targets: a step knows which rows each mixed one is made of, and how much of
each."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fusemix_core.interfaces import Batch
from fusemix_core.mixups.fusemix import FuseMixMixup, pairing

SHARE = "share"
"""The fact that says how much of each source a mixed row is made of. Batches come with it, 1."""


class TargetMix(FuseMixMixup):
    """FuseMix with one lambda and one pairing for all modalities, whose fact `share` `[n, 2]` is
    then lambda and 1 - lambda.

    Rows are mixed with rows of the same modalities, if possible. Two that have none in common make
    no row.
    """

    def sources(self, present: Tensor) -> tuple[Tensor, ...]:
        first, second = pairing(present)
        common = (present[first] & present[second]).any(dim=1)
        return first[common], second[common]

    def mix(self, batch: Batch, weight: float) -> Batch:
        first, second = self.sources(batch.present_here())
        mixed = batch.mixed(lambda x, y: weight * x + (1 - weight) * y, first, second)
        share = mixed.facts[SHARE] * torch.tensor([weight, 1 - weight]).to(mixed.facts[SHARE])
        return replace(mixed, facts={**mixed.facts, SHARE: share})
