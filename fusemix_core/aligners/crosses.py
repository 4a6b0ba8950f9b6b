"""The cross-covariances of K modalities, as matrices or as the rows that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_BYTES = 1 << 30
"""What rows may take that are kept."""


@dataclass(frozen=True)
class Matrices:
    """Cross-covariances that are held.

    held: (k, m) → C_km `[d_k, d_m]`, k < m, of the modalities that meet.
    """

    held: Mapping[tuple[int, int], Tensor]

    def matrix(self, k: int, m: int) -> Tensor:
        """C_km, k < m."""
        return self.held[k, m]

    def times(self, k: int, m: int, block: Tensor) -> Tensor:
        """C_km times a block `[d_m, b]`, or its first columns times fewer rows."""
        matrix = self.held[k, m] if k < m else self.held[m, k].T
        return matrix[:, : len(block)] @ block

    def sums(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Of each k the sum of C_km times the block `[d_m, b]` over all other m."""
        sums = [torch.zeros_like(block) for block in blocks]
        for k, m in self.held:
            sums[k] += self.times(k, m, blocks[m])
            sums[m] += self.times(m, k, blocks[k])
        return sums


@dataclass(frozen=True)
class Rows:
    """Cross-covariances that multiply blocks by way of the rows: without the n d_k d_m steps that
    a matrix takes to be made.

    rows: of each modality `[n, d_k]`, zero where a row lacks it. counts: `[K, K]`, how many rows
    have both. means: (k, m) → the mean `[d_k]` of modality k over the rows that have both.
    """

    rows: Sequence[Tensor]
    counts: Tensor
    means: Mapping[tuple[int, int], Tensor]

    @property
    def held(self) -> list[tuple[int, int]]:
        """The modalities that meet."""
        count = len(self.rows)
        pairs = [(k, m) for k in range(count) for m in range(k + 1, count)]
        return [(k, m) for k, m in pairs if self.counts[k, m]]

    def matrix(self, k: int, m: int) -> Tensor:
        """C_km, k < m."""
        products = self.rows[k].T @ self.rows[m] / self.counts[k, m]
        return products - torch.outer(self.means[k, m], self.means[m, k])

    def times(self, k: int, m: int, block: Tensor) -> Tensor:
        """C_km times a block `[d_m, b]`, or its first columns times fewer rows."""
        along = (self.rows[m][:, : len(block)] @ block).div_(self.counts[k, m])
        return self.rows[k].T @ along - self._of_means(k, m, block)

    def sums(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Of each k the sum of C_km times the block `[d_m, b]` over all other m."""
        along = [rows @ block for rows, block in zip(self.rows, blocks, strict=True)]
        sums = []
        for k, rows in enumerate(self.rows):
            others = [m for m in range(len(along)) if m != k and self.counts[k, m]]
            total = torch.zeros_like(along[k])
            for m in others:
                total.add_(along[m], alpha=1 / int(self.counts[k, m]))
            total = rows.T @ total
            for m in others:
                total -= self._of_means(k, m, blocks[m])
            sums.append(total)
        return sums

    def _of_means(self, k: int, m: int, block: Tensor) -> Tensor:
        return torch.outer(self.means[k, m], self.means[m, k][: len(block)] @ block)


def rows_pay(count: int, dims: Sequence[int], dim: int) -> bool:
    """Whether finding `dim` directions takes less of that many rows than of the matrices that are
    made of them, and the rows fit into memory beside everything else."""
    if 4 * count * sum(dims) > _MOST_BYTES:
        return False
    matrices = (sum(dims) ** 2 - sum(d**2 for d in dims)) / 2
    return matrices > (4 if len(dims) == 2 else 8) * dim * sum(dims)
