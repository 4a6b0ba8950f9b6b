"""The `gram` objective: small is the volume of modalities that mean the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fusemix_core.devices import exact_device
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Objective, Step
from fusemix_core.numerics import exact
from fusemix_core.objectives.infonce import TEMPERATURE_RANGE
from fusemix_core.objectives.pairs import no_loss, unit_rows

_LEAST = 1e-12
"""Of a squared volume: the root's gradient has no bound at 0."""


class GramObjective(Objective):
    """GRAM's contrast (arXiv 2412.11959) for K ≥ 2 modalities, on rows that have all of them.

    V_ij is the volume of the parallelotope of row i of the anchor and row j of every other
    modality, √det of their Gram matrix. The loss is the mean of the cross-entropies of -V / T over
    rows and over columns, each against the diagonal, with labels smoothed by `smoothing`.

    anchor: a modality, "" for the first. The temperature T is clamped to [0.001, 0.5] before each
    use. With fewer than two whole rows the loss is 0. Raises `ConfigError` for options out of
    range, and for an anchor that is none of the modalities.
    """

    def __init__(
        self,
        *,
        anchor: str = "",
        temperature: float = 0.07,
        learnable: bool = True,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        low, high = TEMPERATURE_RANGE
        if not (low <= temperature <= high and 0 <= smoothing < 1):
            raise ConfigError(
                f"gram can't use temperature={temperature} and smoothing={smoothing}.",
                f"They lie in [{low}, {high}] and [0, 1).",
            )
        self.anchor, self.smoothing = anchor, smoothing
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learnable)

    def forward(self, step: Step) -> Tensor:
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        embeddings = step.embeddings
        whole = step.rows_with(*range(len(embeddings)))
        if len(step.links if whole is None else whole) < 2:
            return no_loss(embeddings)
        others = {m: unit_rows(x if whole is None else x[whole]) for m, x in embeddings.items()}
        name = self.anchor or next(iter(others))
        if name not in others:
            raise ConfigError(
                f"gram has no modality '{name}' to anchor on.", f"There are {', '.join(others)}."
            )
        anchor = others.pop(name)
        logits = -volumes(anchor, list(others.values())) / self.temperature
        own = torch.arange(len(logits), device=logits.device)
        rows = cross_entropy(logits, own, label_smoothing=self.smoothing)
        columns = cross_entropy(logits.T, own, label_smoothing=self.smoothing)
        return (rows + columns) / 2

    def log(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature.detach()}


@exact()
def volumes(anchor: Tensor, others: Sequence[Tensor]) -> Tensor:
    """V `[n, m]` of unit rows: the anchor's `[n, d]`, and `[m, d]` of each other modality.

    With the Gram matrix M_j of the others at row j and a_ij their products with the anchor,
    V² = det M_j - aᵀ adj(M_j) a: as many matrix products as there are others, and nothing larger
    than `[n, m]`. M and its adjugate are taken in float64, the products of rows in float32 in any
    precision: a small volume is the difference of numbers near 1.
    """
    rows = torch.stack(list(others), dim=1)  # [m, K - 1, d]
    rows = rows.to(exact_device(rows.device)).double()  # moved first: `mps` can't convert them
    gram = rows @ rows.mT
    determinant = torch.linalg.det(gram)
    adjugate = _adjugate(gram).to(anchor)
    products = [anchor @ other.T for other in others]
    squares = determinant.to(anchor).expand(len(anchor), -1)
    for i, first in enumerate(products):
        for j, second in enumerate(products[: i + 1]):
            weight = adjugate[:, i, j] * (1 if i == j else 2)
            squares = squares - weight * first * second
    return squares.abs().clamp(min=_LEAST).sqrt()


def _adjugate(matrices: Tensor) -> Tensor:
    """adj(M) of symmetric `[m, k, k]`, singular ones too, by cofactors: k is a few."""
    k = matrices.shape[-1]
    if k == 1:
        return torch.ones_like(matrices)
    cofactors = []
    for i in range(k):
        rows = [r for r in range(k) if r != i]
        for j in range(k):
            columns = [c for c in range(k) if c != j]
            kept = [torch.stack([matrices[:, r, c] for c in columns], dim=1) for r in rows]
            minor = torch.linalg.det(torch.stack(kept, dim=1))
            cofactors.append(minor if (i + j) % 2 == 0 else -minor)
    return torch.stack(cofactors, dim=1).unflatten(1, (k, k))
