"""The `infonce` objective: the symmetric contrastive loss of CLIP, as FuseMix computes it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Objective
from fusemix_core.objectives.tiles import Excluded, none_excluded, two_way_logsumexp

TEMPERATURE_RANGE = (0.001, 0.5)


class InfoNCE(Objective):
    """Each row's partner among all rows, both ways: the mean of the two cross-entropies.

    Rows are L2-normalised (norm floored at 1e-12) in float32, or float64 if they are; logits are
    cosines divided by `temperature`, made in tiles, so that no `[n, n]` matrix need be held. The
    parameter is clamped in place to [0.001, 0.5] before each
    use, outside the graph, so that its gradient is not masked (as in the original).

    With several modalities the loss is the mean over the pairs of modalities, each on the rows that
    have both; a pair with fewer than two such rows says nothing and is left out. If none is left
    the loss is 0.

    `learnable=False` keeps the temperature. With `mask_shared` a row that shares an item with row
    i, in either modality of the pair, is not among the negatives of row i; without it (the paper)
    it is. Raises `ConfigError` for a temperature outside the range.
    """

    def __init__(
        self, *, temperature: float = 0.07, learnable: bool = True, mask_shared: bool = False
    ) -> None:
        super().__init__()
        low, high = TEMPERATURE_RANGE
        if not low <= temperature <= high:
            raise ConfigError(
                f"infonce can't use temperature={temperature}.", f"It lies in [{low}, {high}]."
            )
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learnable)
        self.mask_shared = mask_shared

    def forward(self, embeddings: Mapping[str, Tensor], links: Tensor) -> Tensor:
        # Through `data`, so that two forwards before a backward are not taken for a conflict.
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        present = (links >= 0).all(dim=1)  # [n, K]
        complete = bool(present.all())
        unit = [_unit(x) for x in embeddings.values()]
        losses = []
        for a, b in combinations(range(len(unit)), 2):
            x, y, ids = unit[a], unit[b], links[:, :, [a, b]]
            if not complete:
                rows = (present[:, a] & present[:, b]).nonzero()[:, 0]
                x, y, ids = x[rows], y[rows], ids[rows]
            if len(x) >= 2:
                excluded = sharing(ids) if self.mask_shared else none_excluded
                losses.append(self._pair_loss(x, y, excluded))
        if not losses:
            return sum(x.sum() for x in unit) * 0
        return torch.stack(losses).mean()

    def _pair_loss(self, x: Tensor, y: Tensor, excluded: Excluded) -> Tensor:
        # Dividing x, not the similarities, leaves the temperature's gradient to autograd.
        x = x / self.temperature
        rows, columns = two_way_logsumexp(x, y, excluded)
        return (rows + columns).mean() / 2 - (x * y).sum(dim=1).mean()

    def log(self) -> dict[str, float]:
        return {"temperature": self.temperature.item()}


def sharing(ids: Tensor) -> Excluded:
    """Leaves out rows i ≠ j that have a source in common, for ids `[n, S, M]` of M modalities."""
    n, sources, modalities = ids.shape
    if all(len(ids[:, :, m].unique()) == n * sources for m in range(modalities)):
        return none_excluded

    def excluded(rows: slice) -> Tensor:
        own = ids[rows]
        shared = torch.zeros(len(own), n, dtype=torch.bool, device=ids.device)
        for m in range(modalities):
            for s in range(sources):
                for t in range(sources):
                    shared |= own[:, s, m, None] == ids[:, t, m]
        shared[:, rows].fill_diagonal_(False)
        return shared

    return excluded


def _unit(x: Tensor) -> Tensor:
    """Rows of norm 1 in float32, or float64 if they are."""
    return normalize(x if x.dtype == torch.float64 else x.float(), dim=-1, eps=1e-12)
