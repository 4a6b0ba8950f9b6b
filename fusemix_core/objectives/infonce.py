"""The `infonce` objective: the symmetric contrastive loss of CLIP, as FuseMix computes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fusemix_core.errors import ConfigError
from fusemix_core.gathering import total, total_logsumexp
from fusemix_core.interfaces import Objective, Step
from fusemix_core.objectives.half import Sharpness, contrast, others_logsumexp
from fusemix_core.objectives.half_passes import Entries
from fusemix_core.objectives.pairs import Pair, no_loss, pairs_of, sharing, sharing_by_block
from fusemix_core.objectives.ring import ring_logsumexp
from fusemix_core.objectives.tiles import Excluded, none_excluded, two_way_logsumexp

TEMPERATURE_RANGE = (0.001, 0.5)


class InfoNCE(Objective):
    """Each row's partner among all rows, both ways: the mean of the two cross-entropies.

    Rows are L2-normalised (norm floored at 1e-12) in float32, or float64 if they are; logits are
    cosines divided by `temperature`, made in tiles, so that no `[n, n]` matrix need be held; where
    the step's precision rounds, factors of their products are float16 (`objectives.half`). The
    parameter is clamped in place to [0.001, 0.5] before each
    use, outside the graph, so that its gradient is not masked (as in the original).

    With several modalities the loss is the mean over the pairs of modalities, each on the rows that
    have both; a pair with fewer than two such rows says nothing and is left out. If none is left
    the loss is 0. In several processes each has the loss of all their rows, see `gathering`.

    `learnable=False` keeps the temperature. With `mask_shared` a row that shares an item with row
    i, in either modality of the pair, is not among the negatives of row i; without it (the paper)
    it is. Raises `ConfigError` for a temperature outside the range.
    """

    ring = True
    """Whether rows of other processes may go round instead of being gathered; see `ring`. Not if
    `_right` or `_more` need them."""

    def __init__(
        self, *, temperature: float = 0.07, learnable: bool = True, mask_shared: bool = False
    ) -> None:
        super().__init__()
        low, high = TEMPERATURE_RANGE
        if not low <= temperature <= high:
            raise ConfigError(
                f"The objective can't use temperature={temperature}.",
                f"It lies in [{low}, {high}].",
            )
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learnable)
        self.mask_shared, self._sharpness = mask_shared, Sharpness(temperature)

    def forward(self, step: Step) -> Tensor:
        # Through `data`, so that two forwards before a backward are not taken for a conflict.
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        losses = [self._loss(p) for p in pairs_of(step, self.ring) if p.count >= 2]
        if not losses:
            return no_loss(step.own.embeddings)
        return total(torch.stack(losses).mean())

    def _loss(self, pair: Pair) -> Tensor:
        """This process's part of a pair's loss."""
        # Scaling x, not the similarities, leaves the temperature's gradient to autograd.
        x = pair.x * self.temperature.reciprocal()
        if pair.rounds:
            fine = self._sharpness.fine(self.temperature, x.shape[1], pair.step)
            return self._of_half(pair, x, fine) / pair.count
        if pair.ring is None:
            excluded = sharing(pair) if self.mask_shared else none_excluded
            rows, columns = two_way_logsumexp(x, pair.all_y, excluded, pair.kept_bytes)
        else:
            excluded_of = self._excluded_of(pair)

            def local(a: Tensor, b: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
                return two_way_logsumexp(a, b, excluded_of(columns), pair.kept_bytes)

            rows, columns = ring_logsumexp(x, pair.y, pair.ring, local)
        columns = total_logsumexp(columns)[pair.own]
        return ((rows + columns).sum() / 2 - self._right(pair, x)) / pair.count

    def _of_half(self, pair: Pair, x: Tensor, fine: bool) -> Tensor:
        """The sum of a pair's losses of own rows, with products in half precision."""
        kept = pair.kept_bytes
        if pair.ring is None:
            excluded = sharing(pair) if self.mask_shared else none_excluded
            more = self._more(pair)
            rows, columns, more = contrast(x, pair.all_y, pair.start, excluded, more, kept, fine)
            return (rows + columns).sum() / 2 + more
        excluded_of = self._excluded_of(pair)

        def local(a: Tensor, b: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
            first = 0 if columns == pair.own else len(b)
            return others_logsumexp(a, b, first, excluded_of(columns), kept, fine)

        rows, columns = ring_logsumexp(x, pair.y, pair.ring, local)
        columns = total_logsumexp(columns)[pair.own]
        own = (x * pair.y).sum(dim=1)  # a cross-entropy is log(1 + Σ exp / exp own) of the others
        return (softplus(rows - own) + softplus(columns - own)).sum() / 2

    def _excluded_of(self, pair: Pair) -> Callable[[slice], Excluded]:
        """What is left out, by the neighbours of all rows that are compared with."""
        return sharing_by_block(pair) if self.mask_shared else lambda columns: none_excluded

    def _right(self, pair: Pair, x: Tensor) -> Tensor:
        """The sum of the logits that should be high, over own rows: each row's with its partner."""
        return (x * pair.y).sum()

    def _more(self, pair: Pair) -> Entries | None:
        """By which weights of similarities the loss differs from that of one partner each."""
        return None

    def log(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature.detach()}
