"""The directions of retrieval in a split: who asks, who is searched, and what was found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import DataError
from fusemix_core.evaluation.bootstrap import cluster_sums, components, resample, share
from fusemix_core.evaluation.ranking import Positives, Ranks, cosine, rank_direction
from fusemix_core.measured import Score

KS = (1, 5, 10)
"""Of the recalls."""


@dataclass(frozen=True)
class Direction:
    """The ranks of all queries of one modality in the items of another."""

    query: str
    target: str
    positives: Positives
    ranks: Ranks

    @property
    def name(self) -> str:
        return f"{self.query}->{self.target}"

    def hits(self) -> np.ndarray:
        """float `[n, 1 + len(ks)]`: a one for each query, and whether it hits at each k."""
        hits = [torch.ones(len(self.ranks.best))] + [self.ranks.hits(k) for k in KS]
        return torch.stack([h.double() for h in hits], dim=1).numpy()

    def metrics(self) -> dict[str, Any]:
        rank = self.ranks.best.double() + 1
        found = self.ranks.best < self.ranks.gallery
        recalls = share(self.hits().sum(axis=0)[1:], len(rank))
        return {
            "queries": len(rank),
            "gallery": self.ranks.gallery,
            "positives": len(self.positives.pairs),
            **{f"r{k}": float(r) for k, r in zip(KS, recalls, strict=True)},
            "median_rank": float(np.median(rank.numpy())),
            "map": 100 * float(self.ranks.average_precision.mean()),
            "mrr": 100 * float((found / rank).mean()),
        }


def ranked(
    embeddings: Mapping[str, Tensor],
    links: Tensor,
    score: Score = cosine,
    *,
    device: torch.device | str | None = None,
    max_scores: int | None = None,
    of: Collection[str] = (),
) -> list[Direction]:
    """Every direction that the links allow, at least one; arguments as in `retrieval`."""
    if links.shape[1] != len(embeddings):
        raise ValueError(f"{links.shape[1]} columns of links for {len(embeddings)} modalities")
    directions = []
    for query, target in permutations(embeddings, 2):
        if of and query not in of and target not in of:
            continue
        positives, ranks = rank_direction(
            embeddings, links, query, target, score, device, max_scores
        )
        if ranks is not None:
            directions.append(Direction(query, target, positives, ranks))
    if not directions:
        raise DataError(
            "No row of this split links two modalities, so there is nothing to retrieve.",
            "Evaluate another split, or give it a larger fraction of the data.",
        )
    return directions


def hits_of_clusters(
    directions: Sequence[Direction],
    hits: Sequence[np.ndarray],
    links: np.ndarray,
    sizes: Mapping[str, int],
) -> np.ndarray:
    """`hits` of the directions' queries by connected component of `links`, `[C, directions · s]`,
    of `[n, s]` for each direction."""
    labels = dict(zip(sizes, components(links, list(sizes.values())), strict=True))
    return cluster_sums([labels[d.query][d.positives.queries.numpy()] for d in directions], hits)


def resampled_recalls(
    directions: Sequence[Direction], sums: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray] | None:
    """Direction → recalls `[resamples, len(ks)]`."""
    drawn = resample(sums, resamples, seed)
    if drawn is None:
        return None
    parts = np.split(drawn, len(directions), axis=1)
    return {d.name: share(p[:, 1:], p[:, :1]) for d, p in zip(directions, parts, strict=True)}
