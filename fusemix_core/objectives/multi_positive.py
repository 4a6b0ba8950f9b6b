"""The `multi-positive` objective: InfoNCE where a row may have several partners."""

from __future__ import annotations

from torch import Tensor

from fusemix_core.objectives.half_passes import Entries
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.objectives.pairs import Pair, positives, positives_of_each, weighted_sum


class MultiPositive(InfoNCE):
    """InfoNCE with a uniform target over all rows that share an item with row i, in either modality
    of the pair: supervised contrastive learning's L_out (arXiv 2004.11362), both ways.

    With P_i those rows, i among them, the loss of row i is log Σ_j exp s_ij - mean_{p ∈ P_i} s_ip.
    Where no rows share an item it is `infonce`.
    """

    ring = False  # other processes' rows are partners too

    def __init__(self, *, temperature: float = 0.07, learnable: bool = True) -> None:
        super().__init__(temperature=temperature, learnable=learnable)

    def _right(self, pair: Pair, x: Tensor) -> Tensor:
        found = _targets(pair, x)
        if found is None:
            return super()._right(pair, x)
        return weighted_sum(x, pair.all_y, *found)

    def _more(self, pair: Pair) -> Entries | None:
        found = _targets(pair, pair.x)
        if found is None:
            return None
        i, j, weights = found
        return Entries.of(i, j, (j == i + pair.start).to(weights.dtype) - weights)


def _targets(pair: Pair, like: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """(i, j, weight) of the positives of own rows, a mean over both ways; None if no row shares an
    item with another."""
    found = positives(pair)
    if found is None:
        return None
    i, j = found
    share = 1 / positives_of_each(pair, j).to(like.dtype)
    # Row i asks for p with weight 1/|P_i|, and column p for i with 1/|P_p|.
    return i, j, (share[i + pair.start] + share[j]) / 2
