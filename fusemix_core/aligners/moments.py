"""First and second moments of several modalities, in one pass over the pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Moments:
    """float64 moments of K modalities, of which a row may lack some.

    Products of float32 rows are taken in float32 over the rows of one `update`, and added up in
    float64: several times faster, and exact to 1e-6 of the variances, as all are taken about the
    mean of the first rows.

    The covariance of two modalities is taken over the rows that have both, about the means of
    those rows; that of one with itself over all rows that have it.
    """

    def __init__(self, dims: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.dims = tuple(dims)
        self._count = torch.zeros(len(dims), len(dims), dtype=torch.int64)
        pairs = [(k, m) for k in range(len(dims)) for m in range(len(dims))]
        self._origin: list[Tensor] = []
        zeros = {"dtype": torch.float64, "device": device}
        self._first = {(k, m): torch.zeros(dims[k], **zeros) for k, m in pairs}
        self._second = {(k, m): torch.zeros(dims[k], dims[m], **zeros) for k, m in pairs if k <= m}

    def update(self, rows: Sequence[Tensor], present: Tensor) -> None:
        """Add n rows: `[n, d_k]` of each modality, present bool `[n, K]` says which count."""
        complete = bool(present.all())
        if not self._origin:
            self._origin = [_mean(row[present[:, k]]) for k, row in enumerate(rows)]
        rows = [row - origin for row, origin in zip(rows, self._origin, strict=True)]
        for (k, m), total in self._second.items():
            x, y = rows[k], rows[m]
            if not complete:
                both = present[:, k] & present[:, m]
                x, y = x[both], y[both]
            self._count[k, m] += len(x)
            self._first[k, m] += x.double().sum(0)
            if m != k:
                self._count[m, k] += len(x)
                self._first[m, k] += y.double().sum(0)
            total.add_(x.T @ y)

    def met(self, k: int, m: int) -> int:
        """How many rows have both."""
        return int(self._count[k, m])

    def mean(self, k: int) -> Tensor:
        """`[d_k]`, over all rows that have modality k."""
        return self._origin[k].double() + self._first[k, k] / self._count[k, k].clamp(min=1)

    def covariance(self, k: int, m: int) -> Tensor:
        """`[d_k, d_m]`; zero where no row has both."""
        if k > m:
            return self.covariance(m, k).T
        n = self._count[k, m].clamp(min=1)
        means = torch.outer(self._first[k, m] / n, self._first[m, k] / n)
        return self._second[k, m] / n - means


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(0) if len(rows) else rows.sum(0)
