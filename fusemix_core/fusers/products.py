"""`products`: ridge regression on the modalities, and on products of their shared directions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn

from fusemix_core.fusers.block import BlockRidge
from fusemix_core.fusers.blocks import Blocks
from fusemix_core.fusers.linear import RANK, Subset
from fusemix_core.modules import Modules

PRODUCTS = 128
"""The most products of two modalities, by default."""
SHRINK = 1e-3
"""Added to variances, as a share of a modality's total, before directions are whitened."""


class ProductRidge(BlockRidge):
    """Ridge regression on the latents of each modality, and on the products of the canonical
    directions of each two. A product says how far the two items of a row agree, which no sum of
    their latents does: for whether a pair belongs together, and for targets that depend on a
    combination.

    Args:
        inputs, outputs, rank, ranks: as in `LinearFuser`.
        products: the most products of two modalities.

    Example:
        ProductRidge.fit(train, validation, task, FitContext()).fuser
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        rank: int = RANK,
        ranks: Mapping[str, int] = MappingProxyType({}),
        products: int = PRODUCTS,
    ) -> None:
        super().__init__(inputs, outputs, rank=rank, ranks=ranks)
        used = list(self.ranks.values())
        self.products = Modules(
            Products(used[i], used[j], width) for (i, j), width in self.further().values()
        )

    def further(self) -> dict[str, tuple[Subset, int]]:
        most = self.options.get("products", PRODUCTS)
        return {
            f"{a} x {b}": ((i, j), min(most, self.ranks[a], self.ranks[b]))
            for (i, a), (j, b) in combinations(enumerate(self.inputs), 2)
        }

    def rows(self, latents: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        found = super().rows(latents, present)
        own = list(found.values())
        pairs = self.further().items()
        for (name, ((i, j), _)), product in zip(pairs, self.products, strict=True):
            found[name] = product(own[i], own[j], present[:, i] & present[:, j])
        return found

    def extend(self, blocks: Blocks) -> None:
        modules = []
        for (i, j), width in self.further().values():
            both = blocks.present[:, i] & blocks.present[:, j]
            modules.append(Products.of(blocks.rows[i], blocks.rows[j], both, width))
            rows = modules[-1](blocks.rows[i].float(), blocks.rows[j].float(), both)
            blocks.add(rows.double(), both)
        self.products = Modules(modules)


class Products(nn.Module):
    """Products of the canonical directions of two modalities: `[n, width]`, of total variance 1."""

    def __init__(self, first: int, second: int, width: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(first, width))
        self.register_buffer("second", torch.zeros(second, width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def of(cls, first: Tensor, second: Tensor, both: Tensor, width: int) -> Self:
        """Those of training rows.

        Args:
            first, second: features float64 `[n, r]` of two modalities.
            both: bool `[n]`, the rows that have both.
            width: how many.
        """
        made = cls(first.shape[1], second.shape[1], width)
        x, y = first[both], second[both]
        if len(x) < 2:
            return made
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        a, b = _whitening(x), _whitening(y)
        left, _, right = torch.linalg.svd(a.T @ (x.T @ y / len(x)) @ b, full_matrices=False)
        made.first.copy_(a @ left[:, :width])
        made.second.copy_(b @ right.T[:, :width])
        rows = (first[both].float() @ made.first) * (second[both].float() @ made.second)
        made.mean.copy_(rows.mean(dim=0))
        spread = rows.var(dim=0, correction=0).sum().sqrt()
        made.scale.copy_(1 / spread.clamp_min(1e-12))
        return made

    def forward(self, first: Tensor, second: Tensor, both: Tensor) -> Tensor:
        rows = ((first @ self.first) * (second @ self.second) - self.mean) * self.scale
        return torch.where(both[:, None], rows, 0.0)


def _whitening(rows: Tensor) -> Tensor:
    """`[r, r]` that turns centred rows of total variance 1 into uncorrelated ones of variance 1,
    nearly."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return vectors / (values.clamp_min(0) + SHRINK).sqrt()
