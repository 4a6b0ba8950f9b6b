"""A scorer as a browser can compute it: `slope · product + shift`, product that of lifted vectors.

The slope is the same for all pairs of two modalities; the shift depends on the query only. Both are
found by asking the scorer, so that a browser needs to know none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Scorer

_PROBES = 8
_NEAR = 1e-4


def slope(scorer: Scorer, query: str, target: str, asks: Sequence[str], dim: int) -> float:
    """How much a score grows with the inner product of lifted vectors.

    Args:
        scorer: of the model.
        query: modality of queries. target: modality of items.
        asks: the modalities of all queries, in the order of the lifted columns.
        dim: of the embeddings.

    Raises:
        ConfigError: a score isn't such a line.
    """
    queries, items = _probes(dim, 0), _probes(dim, 1)
    scores = scorer.score(queries, items, query, target).double()
    products = _products(scorer, queries, items, query, target, asks).double()
    products, scores = (of - of.mean(dim=1, keepdim=True) for of in (products, scores))
    found = float((products * scores).sum() / products.square().sum())
    if (scores - found * products).abs().max() > _NEAR:
        raise ConfigError(
            "A browser can't compute this model's scores from inner products.",
            "Serve the index instead: fusemix serve INDEX. Or fit with --set scorer=cosine.",
        )
    return found


def probe(dim: int) -> Tensor:
    """An item of unit norm, `[1, dim]`, by which shifts are found: any will do."""
    return _probes(dim, 1)[:1]


def shift(
    scorer: Scorer,
    rows: Tensor,
    query: str,
    target: str,
    asks: Sequence[str],
    slope: float,
    one: Tensor,
) -> Tensor:
    """The part `[n]` of scores with a modality that depends on unit-norm queries `[n, d]` only.

    `one` is `probe(d)`: a network that is exported can't draw it.
    """
    scores = scorer.score(rows, one, query, target)[:, 0]
    return scores - slope * _products(scorer, rows, one, query, target, asks)[:, 0]


def added(scorer: Scorer, query: str, asks: Sequence[str], dim: int) -> list[float]:
    """The columns that a query of a modality gets when it is lifted. Raises `ConfigError`."""
    columns = scorer.lift(_probes(dim, 0), query, list(asks), gallery=False)[:, dim:]
    if (columns != columns[:1]).any():
        raise ConfigError("A browser can't compute what this model's scorer adds to queries.")
    return columns[0].tolist()


def _products(
    scorer: Scorer, queries: Tensor, items: Tensor, query: str, target: str, asks: Sequence[str]
) -> Tensor:
    left = scorer.lift(queries, query, list(asks), gallery=False)
    return left @ scorer.lift(items, target, list(asks), gallery=True).T


def _probes(dim: int, seed: int) -> Tensor:
    drawn = torch.randn(_PROBES, dim, generator=torch.Generator().manual_seed(seed))
    return normalize(drawn, dim=1)
