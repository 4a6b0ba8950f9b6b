"""`LinearFuser`: scores that are linear in the latents, with coefficients of their own for every
subset of the modalities."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Fuser, Labelled
from fusemix_core.fusers.blocks import Blocks
from fusemix_core.fusers.features import Features
from fusemix_core.modules import Modules

MOST = 8
"""Modalities. Coefficients are kept for each of their subsets."""
RANK = 512
"""The most directions of a modality, by default."""
Subset = tuple[int, ...]
"""Numbers of modalities, ascending."""


def subsets(count: int) -> list[Subset]:
    """The non-empty subsets of `count` modalities, the smallest first."""
    return [one for size in range(1, count + 1) for one in combinations(range(count), size)]


def number_of(subset: Subset) -> int:
    """Which row of a table of coefficients is a subset's."""
    return sum(1 << k for k in subset)


class LinearFuser(Fuser[Tensor]):
    """Scores that are linear in the latents. A subset of the modalities has its own coefficients,
    so a row is predicted by a model of exactly its modalities.

    Args:
        inputs, outputs: as in `Fuser`.
        rank: the most directions of a modality's latents that are used.
        ranks: modality → how many are, which `fit` sets.

    Raises:
        ConfigError: there are more than 8 modalities.
    """

    closed = True

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        rank: int = RANK,
        ranks: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs)
        if len(inputs) > MOST:
            raise ConfigError(
                f"A linear fuser takes {MOST} modalities at most; these are {len(inputs)}.",
                "Choose another: --fuser attention",
            )
        self.ranks = {m: ranks.get(m, min(rank, width)) for m, width in inputs.items()}
        self.features = Modules(Features(inputs[m], r) for m, r in self.ranks.items())
        self.terms = {m: ((k,), r) for k, (m, r) in enumerate(self.ranks.items())} | self.further()
        """Name → the modalities that a term of the sum needs, and its width."""
        every, width = 1 << len(inputs), sum(width for _, width in self.terms.values())
        self.register_buffer("weights", torch.zeros(every, width, outputs))
        self.register_buffer("offsets", torch.zeros(every, outputs))

    @classmethod
    def of(cls, train: Labelled, blocks: Blocks, outputs: int, **options: Any) -> Self:
        """The fuser of these features, without coefficients."""
        widths = {m: train.pairs.dims[m] for m in train.modalities}
        ranks = dict(zip(widths, blocks.ranks, strict=False))
        fuser = cls(widths, outputs, **options, ranks=ranks)
        fuser.features = Modules(blocks.features)
        return fuser

    def forward(self, latents: Mapping[str, Tensor], present: Tensor) -> Tensor:
        return sum(self.parts(latents, present).values()) + self.offsets[self._subset(present)]

    def further(self) -> dict[str, tuple[Subset, int]]:
        """Terms beside those of the modalities, as in `terms`; none by default."""
        return {}

    def rows(self, latents: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """The features of each term, `[n, width]`; zeros if it is missing."""
        each = zip(self.inputs, self.features, present.T, strict=True)
        return {m: features(latents[m], there) for m, features, there in each}

    def parts(self, latents: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """The part of the scores that each term adds, `[n, outputs]`; zeros if it is missing."""
        which, found = self._subset(present), {}
        rows, blocks = self.rows(latents, present), self.blocks()
        for name, columns in blocks.items():
            out = torch.zeros(len(present), self.outputs, device=present.device)
            for number in which.unique().tolist():
                own = which == number
                out[own] = rows[name][own] @ self.weights[number, columns]
            found[name] = out
        return found

    def blocks(self) -> dict[str, slice]:
        """Term → where its features are among those of all."""
        found, at = {}, 0
        for name, (_, width) in self.terms.items():
            found[name] = slice(at, at + width)
            at += width
        return found

    def terms_of(self, subset: Subset) -> list[int]:
        """The numbers of the terms that need these modalities only."""
        needs = (needed for needed, _ in self.terms.values())
        return [i for i, needed in enumerate(needs) if set(needed) <= set(subset)]

    def set(self, subset: Subset, weights: Tensor, offsets: Tensor) -> None:
        """Give a subset its coefficients.

        Args:
            subset: of the modalities.
            weights: `[D, outputs]`, of the features of `terms_of(subset)`.
            offsets: `[outputs]`.
        """
        number, blocks = number_of(subset), list(self.blocks().values())
        columns = torch.cat(
            [torch.arange(blocks[k].start, blocks[k].stop) for k in self.terms_of(subset)]
        )
        self.weights[number, columns] = weights.to(self.weights)
        self.offsets[number] = offsets.to(self.offsets)

    def _subset(self, present: Tensor) -> Tensor:
        """int64 `[n]`: the number of each row's subset."""
        bits = 1 << torch.arange(present.shape[1], device=present.device)
        return (present * bits).sum(dim=1)
