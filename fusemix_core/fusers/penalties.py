"""How strongly each modality is penalised: chosen by leaving out training rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusemix_core.fusers.ridge import Moments, left_out

ENOUGH = 1_000
"""Training rows by which penalties are chosen."""
_DECADES = range(-7, 3)
"""Penalties are tried from 10^-7 to 10² times the sum of squares of a modality's features."""
_STEPS = (1.0, 0.5)
"""Changes of a penalty in decades, the larger first."""


class Choice:
    """Chooses the penalties of a ridge regression on blocks of features.

    Args:
        features: `[n, D]`, whose columns have the mean 0; those of a block have a total variance
            of 1.
        responses: `[n, C]`.
        blocks: how many columns each block has.
        groups: int64, rows that are left out together.
    """

    def __init__(
        self,
        features: Tensor,
        responses: Tensor,
        blocks: Sequence[int],
        groups: Sequence[Tensor] = (),
    ) -> None:
        self.blocks = torch.tensor(list(blocks), device=features.device)
        self.moments = Moments.of(features, responses)
        rows, self._groups = some_rows(len(features), groups, ENOUGH)
        self._features, self._responses = features[rows], responses[rows]

    def penalties(self, decades: Sequence[float]) -> Tensor:
        """`[D]`, from one exponent of ten for each block."""
        each = 10 ** torch.tensor(list(decades), dtype=torch.float64, device=self.blocks.device)
        return (each * self.moments.count).repeat_interleave(self.blocks)

    def loss(self, decades: Sequence[float]) -> float:
        """The mean squared error of the rows that are left out."""
        found = left_out(
            self.moments, self._features, self._responses, self.penalties(decades), self._groups
        )
        return (found - self._responses).square().mean().item()

    def together(self, offsets: Sequence[float] = ()) -> float:
        """The exponent that is best for all blocks alike, beside their offsets."""
        offsets = list(offsets) or [0.0] * len(self.blocks)

        def loss(decade: float) -> float:
            return self.loss([decade + one for one in offsets])

        shift = -sum(offsets) / len(offsets)  # so that what is tried is the usual size
        losses = {shift + one: loss(shift + one) for one in _DECADES}
        best = min(losses, key=losses.__getitem__)
        losses |= {one: loss(one) for one in (best - 0.5, best + 0.5)}
        return min(losses, key=losses.__getitem__)

    def each(self, start: Sequence[float]) -> list[float]:
        """The exponent of each block, by changing all and then one after another while that
        helps."""
        best, decades = self.loss(start), list(start)
        moves = [list(range(len(start)))] * (len(start) > 1) + [[k] for k in range(len(start))]
        for step in _STEPS:
            for move in moves:
                for change in (step, -step):
                    while True:
                        new = [one + change * (k in move) for k, one in enumerate(decades)]
                        inside = all(_DECADES[0] <= one <= _DECADES[-1] for one in new)
                        loss = self.loss(new) if inside else best
                        if not loss < best * (1 - 1e-6):
                            break
                        best, decades = loss, new
        return decades


def some_rows(count: int, groups: Sequence[Tensor], most: int) -> tuple[Tensor, list[Tensor]]:
    """`most` rows or a few more, with the whole group of each.

    Returns:
        (int64, the rows, ascending; the groups in the numbers that rows have among these).
    """
    if count <= most:
        return torch.arange(count), list(groups)
    unit = torch.arange(count)
    for rows in groups:
        unit[rows] = rows.min()
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    place = torch.empty(count, dtype=torch.int64)
    place[drawn] = torch.arange(count)
    order = place[unit].argsort(stable=True)
    last = unit[order[most - 1]]
    end = most + int((unit[order[most:]] == last).sum())
    rows = order[:end].sort().values
    taken = torch.zeros(count, dtype=torch.bool)
    taken[rows] = True
    number = taken.cumsum(0) - 1
    return rows, [number[one] for one in groups if bool(taken[one[0]])]
