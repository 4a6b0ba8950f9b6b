"""Cosine: the plain score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fusemix_core.interfaces import Scorer


class CosineScorer(Scorer):
    """The inner product of unit-norm embeddings, in float32. Holds nothing."""

    def score(self, queries: Tensor, gallery: Tensor, query: str, target: str) -> Tensor:
        """Cosines `[n, m]` of queries `[n, d]` and gallery `[m, d]`, of any modalities."""
        return queries.float() @ gallery.float().T

    def prepare(self, gallery: Tensor, query: str, target: str) -> Callable[[Tensor], Tensor]:
        """`score` against a fixed gallery, as a function of the queries `[n, d]`."""
        gallery = gallery.float()
        return lambda queries: queries.float() @ gallery.T

    def lift(self, rows: Tensor, modality: str, against: Sequence[str], gallery: bool) -> Tensor:
        """The rows `[n, d]` in float32: their inner product is the score."""
        return rows.float()
