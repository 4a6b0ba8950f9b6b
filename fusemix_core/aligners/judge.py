"""Which of several models finds more of a validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusemix_core.aligners.recalls import (
    VALIDATION_ROWS,
    Hits,
    directions,
    embedded,
    gain,
    hits_of,
    mean_recall,
    recalls_in,
)
from fusemix_core.engine.randomness import at_most
from fusemix_core.interfaces import Adapter, FitContext, PairedLatents
from fusemix_core.numerics import exact

Units = Mapping[str, Tensor]
"""Modality → unit-norm embeddings of the split's items."""


CHUNK = 2_048
"""Queries that are compared with all targets at a time."""


class Judge:
    """Measures embeddings on a validation split.

    Args:
        validation: The split.
        context: Its seed draws the rows, its device embeds them.
        rows: How many rows are used at most.
    """

    def __init__(
        self, validation: PairedLatents, context: FitContext, rows: int = VALIDATION_ROWS
    ) -> None:
        self.validation = at_most(validation, rows, context.seed)
        self.device = context.device

    @property
    def tells(self) -> bool:
        """Whether the split has something to distinguish: two items of two modalities, linked."""
        ones = {
            m: torch.ones(len(self.validation.linked(m)), 1) for m in self.validation.modalities
        }
        return bool(self.hits(ones))

    def embed(self, adapters: Mapping[str, Adapter]) -> Units:
        """The embeddings of the split's items by these adapters, in eval mode."""
        for adapter in adapters.values():
            adapter.to(self.device).eval()
        return embedded(adapters, self.validation, self.device)

    def hits(self, units: Units) -> Hits:
        """What these embeddings find; empty if there is nothing to distinguish."""
        return hits_of(units, self.validation)

    @exact()
    def hits_mixed(self, first: Units, second: Units, shares: Sequence[float]) -> list[Hits]:
        """What the mixtures of two models find, the second with each of these shares."""
        found: list[Hits] = [{} for _ in shares]
        for of in directions(self.validation):
            (x, y), (v, w) = of.rows(first), of.rows(second)
            near: list[list[Tensor]] = [[] for _ in shares]
            for part, other in zip(x.split(CHUNK), v.split(CHUNK), strict=True):
                one, two = part @ y.T, other @ w.T
                for share, own in zip(shares, near, strict=True):
                    own.append(torch.lerp(one, two, share).topk(of.most, dim=1).indices)
            for hits, own in zip(found, near, strict=True):
                hits[of.query, of.target] = of.hits(torch.cat(own))
        return found


def score_of(hits: Hits) -> float:
    """The mean recall; 0 if there is nothing to distinguish."""
    return mean_recall(recalls_in(hits)) or 0.0


def first_of(hits: Hits) -> float:
    """R@1, the mean over directions."""
    shares = [own[0] for own in recalls_in(hits).values()]
    return sum(shares) / max(len(shares), 1)


def beats(hits: Hits, over: Hits) -> bool:
    """Whether the mean recall is higher by more than its noise."""
    more, error = gain(hits, over)
    return more > error
