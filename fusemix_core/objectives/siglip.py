"""The `siglip` objective: every pair of rows is a yes or no of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.gathering import total
from fusemix_core.interfaces import Objective, Step
from fusemix_core.objectives.half import Sharpness, signed_softplus
from fusemix_core.objectives.half_passes import Entries
from fusemix_core.objectives.pairs import (
    Pair,
    no_loss,
    pairs_of,
    positives,
    sharing_by_block,
    weighted_sum,
)
from fusemix_core.objectives.ring import Local, ring_sum
from fusemix_core.objectives.tiles import Excluded, none_excluded, softplus_sum

SHARED = ("negative", "masked", "positive")


class SigLIP(Objective):
    """The pairwise sigmoid loss of SigLIP (arXiv 2303.15343): Σ_ij log(1 + exp(-l_ij z_ij)) / n.

    z_ij = scale · u_i·v_j + bias of L2-normalised rows, made in tiles; l_ij is 1 where j is a
    positive of i and else -1. `log_scale` and `bias` are parameters, unless `learnable=False`;
    the published start is scale 10 and bias -10, where n rows have a loss near that of always no.

    shared: what rows are to each other that share an item, in either modality of the pair:
    "negative", as published, "masked" (in no term), or "positive". With several modalities the loss
    is the mean over the pairs of modalities that some row has; 0 if there is none. In several
    processes each has the loss of all their rows, see `gathering`. Raises `ConfigError` for a scale
    that is not positive or an unknown word.
    """

    def __init__(
        self,
        *,
        scale: float = 10.0,
        bias: float = -10.0,
        learnable: bool = True,
        shared: str = "negative",
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ConfigError(f"siglip can't use scale={scale}.", "It is above 0.")
        if shared not in SHARED:
            raise ConfigError(
                f"siglip has no shared='{shared}'.", f"It is one of {', '.join(SHARED)}."
            )
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learnable)
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learnable)
        self.shared, self._sharpness = shared, Sharpness(1 / scale)

    def forward(self, step: Step) -> Tensor:
        pairs = pairs_of(step, ring=self.shared != "positive")
        losses = [self._loss(p) for p in pairs if p.count]
        if not losses:
            return no_loss(step.own.embeddings)
        return total(torch.stack(losses).mean())

    def _loss(self, pair: Pair) -> Tensor:
        """This process's part of a pair's loss."""
        x = pair.x * self.log_scale.exp()
        local = self._of_half(pair, x) if pair.rounds else self._of_block(pair)
        if pair.ring is None:
            every = local(x, pair.all_y, slice(0, pair.count), self.bias)
        else:
            every = ring_sum(x, pair.y, pair.ring, local, self.bias)
        # log(1 + exp(-z)) of a positive is log(1 + exp(z)) - z.
        return (every if pair.rounds else every - self._right(pair, x)) / pair.count

    def _of_block(self, pair: Pair) -> Local:
        """Σ log(1 + exp z) of own rows and some of all rows."""
        excluded_of = self._excluded_of(pair)

        def of(x: Tensor, y: Tensor, columns: slice, bias: Tensor) -> Tensor:
            return softplus_sum(x, y, bias, excluded_of(columns), pair.kept_bytes)

        return of

    def _of_half(self, pair: Pair, x: Tensor) -> Local:
        """Σ log(1 + exp(-l z)) of these, with products in half precision."""
        excluded_of, found = self._excluded_of(pair), self._positives(pair)
        some = None if found is None else Entries.of(*found, x.new_ones(len(found[0])))
        temperature = (-self.log_scale).exp()
        fine = self._sharpness.fine(temperature, x.shape[1], pair.step)

        def of(x: Tensor, y: Tensor, columns: slice, bias: Tensor) -> Tensor:
            first = pair.start - columns.start  # of y, the partner of the first of x
            right = some or (first if 0 <= first < len(y) else len(y))
            return signed_softplus(x, y, bias, right, excluded_of(columns), pair.kept_bytes, fine)

        return of

    def _excluded_of(self, pair: Pair) -> Callable[[slice], Excluded]:
        """What is left out, by the neighbours of all rows that are compared with."""
        masked = self.shared == "masked"
        return sharing_by_block(pair) if masked else lambda columns: none_excluded

    def _right(self, pair: Pair, x: Tensor) -> Tensor:
        """Σ z over the positives of own rows."""
        found = self._positives(pair)
        if found is None:
            return (x * pair.y).sum() + len(x) * self.bias
        i, j = found
        return weighted_sum(x, pair.all_y, i, j, x.new_ones(len(i))) + len(i) * self.bias

    def _positives(self, pair: Pair) -> tuple[Tensor, Tensor] | None:
        """(i, j) of those of own rows, if a row has more than its partner."""
        return positives(pair) if self.shared == "positive" else None

    def log(self) -> dict[str, Tensor]:
        return {"scale": self.log_scale.detach().exp(), "bias": self.bias.detach()}
