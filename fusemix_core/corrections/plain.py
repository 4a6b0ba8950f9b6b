"""The corrections `none`, `norm` and `shift`: by means of training items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.context import FitContext
from fusemix_core.correction import Correction, CorrectionPairs, length_of


class NoCorrection(Correction):
    """Embeddings as they are, of length 1."""

    def learn(self, pairs: CorrectionPairs, context: FitContext) -> Mapping[str, Tensor]:
        return {}

    def apply(
        self,
        rows: Tensor,
        learnt: Mapping[str, Tensor],
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        return rows

    def knows(self, source: str, target: str) -> bool:
        """Always: there is nothing to learn."""
        return True


class NormCorrection(Correction):
    """Embeddings at the mean length of the fixed modality's training latents.

    A generator that was trained on latents as the encoder gives them needs at least this: it has
    never seen vectors of length 1.
    """

    def learn(self, pairs: CorrectionPairs, context: FitContext) -> Mapping[str, Tensor]:
        return {"length": length_of(pairs.known)}

    def apply(
        self,
        rows: Tensor,
        learnt: Mapping[str, Tensor],
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        length = learnt["length"] if learnt else length_of(_given(bank))
        return rows * length.to(rows.device)


class ShiftCorrection(Correction):
    """Embeddings moved by the difference of the two modalities' means, at the mean length.

    Modalities that share a space still lie apart by about a constant (Liang et al., 2022,
    https://arxiv.org/abs/2203.02053).
    """

    def learn(self, pairs: CorrectionPairs, context: FitContext) -> Mapping[str, Tensor]:
        gap = normalize(pairs.latents.float(), dim=1).mean(0) - pairs.rows.mean(0)
        return {"gap": gap, "length": length_of(pairs.known)}

    def apply(
        self,
        rows: Tensor,
        learnt: Mapping[str, Tensor],
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        moved = normalize(rows + learnt["gap"].to(rows.device), dim=1)
        return moved * learnt["length"].to(rows.device)


def _given(bank: Tensor | None) -> Tensor:
    assert bank is not None  # `Correction.__call__` refuses a call with neither
    return bank
