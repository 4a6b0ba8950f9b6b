"""The `sail` objective: the sigmoid loss, a mean over all pairs of rows."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fusemix_core.errors import ConfigError
from fusemix_core.gathering import total
from fusemix_core.interfaces import Step
from fusemix_core.objectives.pairs import Pair, no_loss, pairs_of
from fusemix_core.objectives.siglip import SigLIP

MOST_SCALE = 100.0


class SailObjective(SigLIP):
    """Σ_ij log(1 + exp(-l_ij z_ij)) / n², a mean over the pairs of modalities (arXiv 2412.04616).

    z and l are those of `siglip`, which divides by n; where several rows of a batch have one image,
    each of its captions is a positive of it (`shared`, see `siglip`). anchor: a modality, of which
    the pairs with every other one count and no others; "" for all pairs. The scale is clamped to
    [1, 100] before each use. Raises `ConfigError` for an anchor that is none of the modalities.
    """

    def __init__(
        self,
        *,
        scale: float = 20.0,
        bias: float = -10.0,
        learnable: bool = True,
        anchor: str = "",
        shared: str = "positive",
    ) -> None:
        super().__init__(scale=scale, bias=bias, learnable=learnable, shared=shared)
        self.anchor = anchor
        self._shares: dict[str, Tensor] = {}

    def forward(self, step: Step) -> Tensor:
        embeddings = step.own.embeddings
        if self.anchor and self.anchor not in embeddings:
            raise ConfigError(
                f"sail has no modality '{self.anchor}' to anchor on.",
                f"There are {', '.join(embeddings)}.",
            )
        self.log_scale.data.clamp_(0.0, math.log(MOST_SCALE))
        found = pairs_of(step, ring=self.shared != "positive")
        pairs = [
            pair
            for names, pair in zip(combinations(embeddings, 2), found, strict=True)
            if pair.count and (not self.anchor or self.anchor in names)
        ]
        if not pairs:
            return no_loss(embeddings)
        loss = total(torch.stack([self._loss(pair) for pair in pairs]).mean())
        positive = total(torch.stack([self._own(pair) for pair in pairs]).mean())
        self._shares = {"positive_loss": positive, "negative_loss": loss.detach() - positive}
        return loss

    def _loss(self, pair: Pair) -> Tensor:
        return super()._loss(pair) / pair.count

    @torch.no_grad()
    def _own(self, pair: Pair) -> Tensor:
        """What this process's rows and their own partners add to a pair's loss."""
        z = self.log_scale.exp() * (pair.x * pair.y).sum(dim=1) + self.bias
        return softplus(-z).sum() / pair.count**2

    def log(self) -> dict[str, Tensor]:
        """The scale, the bias, and the loss's parts of rows and their partners, and of all else."""
        return {**super().log(), **self._shares}
