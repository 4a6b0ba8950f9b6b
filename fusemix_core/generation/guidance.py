"""How well images fit embeddings by a fused model, as a function with a gradient."""

from __future__ import annotations

from torch import Tensor

from fusemix_core.fused import FusedModel
from fusemix_core.generator import Score


def score_of(model: FusedModel, rows: Tensor) -> Score:
    """The score of images against unit-norm embeddings `[n, d]`, a row per image."""
    raise NotImplementedError
