"""The `multi-positive` objective: InfoNCE where a row may have several partners."""

from __future__ import annotations

from torch import Tensor

from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.objectives.pairs import Pair, positives, positives_of_each, weighted_sum


class MultiPositive(InfoNCE):
    """InfoNCE with a uniform target over all rows that share an item with row i, in either modality
    of the pair: supervised contrastive learning's L_out (arXiv 2004.11362), both ways.

    With P_i those rows, i among them, the loss of row i is log Σ_j exp s_ij - mean_{p ∈ P_i} s_ip.
    Where no rows share an item it is `infonce`.
    """

    def __init__(self, *, temperature: float = 0.07, learnable: bool = True) -> None:
        super().__init__(temperature=temperature, learnable=learnable)

    def _right(self, pair: Pair, x: Tensor) -> Tensor:
        found = positives(pair)
        if found is None:
            return super()._right(pair, x)
        i, j = found
        share = 1 / positives_of_each(pair, j).to(x.dtype)
        # Row i asks for p with weight 1/|P_i|, and column p for i with 1/|P_p|.
        weights = (share[i + pair.start] + share[j]) / 2
        return weighted_sum(x, pair.all_y, i, j, weights)
