"""The `sail` objective: the sigmoid loss, a mean over all pairs of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.objectives.gathering import total
from fusemix_core.objectives.pairs import Pair, pairs_of
from fusemix_core.objectives.siglip import SigLIP

MOST_SCALE = 100.0


class SailObjective(SigLIP):
    """Σ_ij log(1 + exp(-l_ij z_ij)) / n², a mean over the pairs of modalities (arXiv 2412.04616).

    z and l are those of `siglip`, which divides by n. anchor: a modality, of which the pairs with
    every other one count and no others, such as the image of which there are a raw and a long
    caption; "" for all pairs. The scale is clamped to [1, 100] before each use. Raises
    `ConfigError` for an anchor that is none of the modalities.
    """

    def __init__(
        self,
        *,
        scale: float = 20.0,
        bias: float = -10.0,
        learnable: bool = True,
        anchor: str = "",
    ) -> None:
        super().__init__(scale=scale, bias=bias, learnable=learnable)
        self.anchor = anchor

    def forward(self, embeddings: Mapping[str, Tensor], links: Tensor) -> Tensor:
        if self.anchor and self.anchor not in embeddings:
            raise ConfigError(
                f"sail has no modality '{self.anchor}' to anchor on.",
                f"There are {', '.join(embeddings)}.",
            )
        self.log_scale.data.clamp_(0.0, math.log(MOST_SCALE))
        losses = [
            self._loss(pair)
            for names, pair in zip(
                combinations(embeddings, 2), pairs_of(embeddings, links), strict=True
            )
            if len(pair.all_y) and (not self.anchor or self.anchor in names)
        ]
        if not losses:
            return sum(x.sum() for x in embeddings.values()) * 0
        return total(torch.stack(losses).mean())

    def _loss(self, pair: Pair) -> Tensor:
        return super()._loss(pair) / len(pair.all_y)
