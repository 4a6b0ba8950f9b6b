"""Some right and some wrong retrievals of a split, drawn at random, to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.evaluation.ranking import (
    Positives,
    cosine,
    rank_direction,
)
from fusemix_core.measured import Score
from fusemix_core.numerics import at_least_float32, exact


@dataclass(frozen=True)
class Hit:
    """A gallery item, its score, and whether it is a true partner."""

    item: int
    score: float
    partner: bool


@dataclass(frozen=True)
class Retrieved:
    """What one query found. Items are ids in the embeddings of their modality.

    rank: of its best partner, from 1. hits: the first few, best first. partners: all true ones.
    """

    query: str
    target: str
    item: int
    rank: int
    hits: tuple[Hit, ...]
    partners: tuple[int, ...]


@exact()
@torch.no_grad()
def examples(
    embeddings: Mapping[str, Tensor],
    links: Tensor,
    query: str,
    target: str,
    score: Score = cosine,
    *,
    right: int = 4,
    wrong: int = 4,
    top: int = 3,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> list[Retrieved]:
    """At most `right` queries whose partner came first, then at most `wrong` where it did not.

    Arguments as in `retrieval`. Which queries are shown is drawn with `seed`, not picked by eye.
    """
    positives, ranks = rank_direction(embeddings, links, query, target, score, device)
    if ranks is None:
        return []
    first = ranks.hits(1)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for mask, count in ((first, right), (~first, wrong)):
        where = mask.nonzero()[:, 0]
        order = torch.randperm(len(where), generator=generator)
        chosen.append(where[order[:count]])
    rows = torch.cat(chosen)
    if not len(rows):
        return []
    scores = score(
        _rows(embeddings[query], positives.queries[rows]).to(device),
        _rows(embeddings[target], positives.gallery).to(device),
        query,
        target,
    ).cpu()
    return [
        _retrieved(query, target, positives, row, int(ranks.best[row]) + 1, line, top)
        for row, line in zip(rows.tolist(), scores, strict=True)
    ]


def _retrieved(
    query: str, target: str, positives: Positives, row: int, rank: int, scores: Tensor, top: int
) -> Retrieved:
    own = positives.pairs[positives.pairs[:, 0] == row, 1]
    partner = torch.zeros(len(scores), dtype=torch.bool)
    partner[own] = True
    # Partners last among equals, as the rank counts them.
    candidates = partner.int().argsort(stable=True)
    keys = scores[candidates].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    order = candidates[keys.argsort(descending=True, stable=True)[:top]]
    gallery = positives.gallery
    hits = [Hit(int(gallery[i]), float(scores[i]), bool(partner[i])) for i in order.tolist()]
    return Retrieved(
        query,
        target,
        int(positives.queries[row]),
        rank,
        tuple(hits),
        tuple(gallery[own].tolist()),
    )


def _rows(embeddings: Tensor, ids: Tensor) -> Tensor:
    return at_least_float32(embeddings[ids.to(embeddings.device)])
