"""Rows whose items probably don't belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.evaluation.pairing import (
    Others,
    Partners,
    among,
    percentiles,
    unpaired,
)

LIKELY = 80.0
"""The percentile among unpaired items below which a row is likely mispaired."""
_HALF = 50.0


@dataclass
class Fits:
    """How well the items of each row fit, by models that didn't see the row.

    Attributes:
        cosine: `[m]`, of the row's two items.
        lead: `[m]`, 2 cos − the mean cosines of both items to their 10 nearest others: how much
            closer they are than the others. NaN in a row that lacks one.
        percentile: `[m]`, the percentage of unpaired items that lead by less.
        ranks: int64 `[m, 2]`: the place of the second item among all that the first could have,
            and the other way round.
        among: int64 `[m, 2]`: of how many.
        better: int64 `[m, 2]`: the item of the second modality that fits the first item best, and
            the other way round; -1 where the row's own does.
    """

    cosine: Tensor
    lead: Tensor
    percentile: Tensor
    ranks: Tensor
    among: Tensor
    better: Tensor

    @classmethod
    def empty(cls, count: int) -> Fits:
        """Of rows that are not compared yet."""
        nan, none = torch.full((count,), torch.nan), torch.full((count, 2), -1, dtype=torch.long)
        return cls(nan, nan.clone(), nan.clone(), none, none.clone(), none.clone())

    def fill(self, rows: Tensor, found: Fits) -> None:
        """Take over what was found for some of the rows."""
        for name, values in vars(found).items():
            getattr(self, name)[rows] = values

    @property
    def share(self) -> float | None:
        """The estimated share of mispaired rows, 0 to 1; None of no rows.

        Mispaired rows lead like unpaired items: half of them are below the 50th percentile, where
        few others are (Storey, 2002, https://doi.org/10.1111/1467-9868.00346). Rows that fit badly
        though they belong together count too, so it is rather too high.
        """
        known = self.percentile[~self.percentile.isnan()]
        return min(1.0, 2 * (known < _HALF).double().mean().item()) if len(known) else None


def fits(
    embeddings: Mapping[str, Tensor], links: np.ndarray, modalities: tuple[str, str], seed: int = 0
) -> Fits:
    """Compare the two items of each row with the items of other rows.

    Args:
        embeddings: modality → unit-norm `[n, d]`, by a model that saw none of the rows.
        links: int64 `[m, 2]` into these, without missing items.
        modalities: of the two columns.
        seed: draws the unpaired items.
    """
    rows = tuple(embeddings[m][links[:, k]] for k, m in enumerate(modalities))
    others = tuple(
        Others.sample(links[:, k], lambda ids, m=m: embeddings[m][ids])
        for k, m in enumerate(modalities)
    )
    own = (rows[0] * rows[1]).sum(dim=1)
    ways = [
        among(rows[q], links[:, q], own, others[t], Partners(links[:, q], links[:, t], others[t]))
        for q, t in ((0, 1), (1, 0))
    ]
    lead = 2 * own - ways[0].near - ways[1].near
    near = {}
    for k, m in enumerate(modalities):
        near[m] = torch.zeros(len(embeddings[m]))
        near[m][links[:, k]] = ways[k].near
    drawn = unpaired(links, seed=seed)
    a, b = drawn[:, 0], drawn[:, 1]
    first, second = (embeddings[m] for m in modalities)
    chance = [
        2 * (first[a[part]] * second[b[part]]).sum(dim=1)
        - near[modalities[0]][a[part]]
        - near[modalities[1]][b[part]]
        for part in np.array_split(np.arange(len(drawn)), max(1, len(drawn) // 4096))
    ]
    return Fits(
        cosine=own,
        lead=lead,
        percentile=percentiles(lead, torch.cat(chance)),
        ranks=torch.stack([way.rank for way in ways], dim=1),
        among=torch.tensor([[len(others[1].ids), len(others[0].ids)]]).expand(len(links), 2),
        better=torch.stack([torch.where(w.beats, w.best, -1) for w in ways], dim=1),
    )
