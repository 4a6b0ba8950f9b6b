"""Samples of numbered things that keep the share of each part."""

from __future__ import annotations

import torch
from torch import Tensor


def even_sample(n: int, size: int) -> Tensor:
    """int64, sorted: one of each of `size` equal stretches of range(n); all where n ≤ size.

    Data comes sorted (by book, by class): this keeps each part's share, where a plain draw varies.
    """
    if n <= size:
        return torch.arange(n)
    edges = torch.arange(size + 1) * n // size
    draw = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return edges[:-1] + (draw * (edges[1:] - edges[:-1])).long()
