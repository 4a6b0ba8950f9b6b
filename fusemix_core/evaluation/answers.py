"""What a search answers first, how sure it is, and when to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.evaluation.bootstrap import (
    RESAMPLES,
    cluster_sums,
    components,
    interval,
    resample,
    share,
)
from fusemix_core.evaluation.ranking import MAX_SCORES, Positives, cosine
from fusemix_core.measured import Measured, Score
from fusemix_core.numerics import exact

LEAST_TRUSTED = 20
"""Answers that a threshold must leave: the precision of fewer is not known."""


@dataclass(frozen=True)
class Answers:
    """The first answer to each query of a direction.

    Attributes:
        query, target: the modalities.
        queries: int64 `[n]`, the queries, as ids in the embeddings.
        first: int64 `[n]`, the item that came first. If a partner ties with it, the other one.
        score: float32 `[n]`, its score.
        partner: int64 `[n]`, the partner with the highest score; `partner_score`: float32 `[n]`.
        rank: int64 `[n]`, the rank of that partner, from 1; a tie counts against the query.
        gallery: how many items were searched.
    """

    query: str
    target: str
    queries: Tensor
    first: Tensor
    score: Tensor
    partner: Tensor
    partner_score: Tensor
    rank: Tensor
    gallery: int

    @property
    def right(self) -> Tensor:
        """bool `[n]`: whether the first answer is a partner."""
        return self.rank == 1

    def recall(self, k: int) -> float:
        """The share of queries, in percent, with a partner among the first k."""
        return 100 * float((self.rank <= k).double().mean())


@exact()
@torch.no_grad()
def answers(
    embeddings: Mapping[str, Tensor],
    links: Tensor,
    query: str,
    target: str,
    score: Score = cosine,
    *,
    device: torch.device | str | None = None,
    max_scores: int = MAX_SCORES,
) -> Answers | None:
    """The first answers in one direction of a split, None if no row links the two modalities.

    Arguments are those of `evaluation.retrieval`. Scores are held for up to `max_scores` pairs, or
    for one query and the whole gallery.
    """
    modalities = list(embeddings)
    found = Positives.of(links.cpu(), modalities.index(query), modalities.index(target))
    if not len(found.queries):
        return None
    asked, searched = found.sides(embeddings, query, target, device)
    rows, parts = max(1, max_scores // len(searched)), []
    ends = torch.searchsorted(found.pairs[:, 0].contiguous(), torch.arange(len(asked) + 1))
    for start in range(0, len(asked), rows):
        stop = min(start + rows, len(asked))
        scores = score(asked[start:stop], searched, query, target).cpu().float()
        own = found.pairs[ends[start] : ends[stop]] - torch.tensor([start, 0])
        parts.append(_answered(scores, own))
    first, best, partner, partner_score, rank = map(torch.cat, zip(*parts, strict=True))
    gallery = found.gallery
    return Answers(
        query,
        target,
        found.queries,
        gallery[first],
        best,
        gallery[partner],
        partner_score,
        rank,
        len(gallery),
    )


def directions(data: Measured) -> Iterator[Answers]:
    """The first answers in each direction; if modalities were added, in those from and to these."""
    for query in data.embeddings:
        for target in data.embeddings:
            if query == target or (data.added and not {query, target} & set(data.added)):
                continue
            found = answers(
                data.embeddings, data.links, query, target, data.score, device=data.device
            )
            if found is not None:
                yield found


def _answered(scores: Tensor, own: Tensor) -> tuple[Tensor, ...]:
    """(first, its score, best partner, its score, its rank) of a tile of scores `[q, m]`, whose
    partners are at the positions `own [E, 2]`."""
    scores = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    theirs = torch.full_like(scores, -torch.inf)
    theirs[own[:, 0], own[:, 1]] = scores[own[:, 0], own[:, 1]]
    partner_score, partner = theirs.max(dim=1)
    unscored = partner_score == -torch.inf
    partner[unscored] = own[torch.searchsorted(own[:, 0].contiguous(), unscored.nonzero()[:, 0]), 1]
    others = scores.index_put((own[:, 0], own[:, 1]), torch.tensor(-torch.inf))
    other_score, other = others.max(dim=1)
    # Of equal scores, the partner is counted last, as everywhere.
    rank = 1 + (others >= partner_score[:, None]).sum(dim=1)
    rank[unscored] = scores.shape[1]
    right = partner_score > other_score
    first = torch.where(right, partner, other)
    return first, torch.maximum(partner_score, other_score), partner, partner_score, rank


def threshold(found: Answers, precision: float = 0.9) -> float | None:
    """The lowest score at or above which this share of first answers is right. None if there is no
    score, or it leaves fewer than `LEAST_TRUSTED` answers. Choose it on validation."""
    order = found.score.argsort(descending=True, stable=True)
    score, right = found.score[order].double(), found.right[order].double()
    count = torch.arange(1, len(right) + 1)
    last = torch.cat([score[1:] != score[:-1], torch.tensor([True])])  # equal scores stay together
    fits = (right.cumsum(0) / count >= precision) & last & (count >= LEAST_TRUSTED)
    return float(score[fits.nonzero().max()]) if fits.any() else None


def above(
    found: Answers, least: float, links: Tensor, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, float | list[float] | None]:
    """What answers with a score of at least `least` are worth.

    Args:
        found: the answers of a split on which `least` was not chosen.
        least: the threshold.
        links: the split's links, a column for each modality of `sizes`, in that order.
        sizes: modality → how many items it has.
        seed: of the bootstrap.

    Returns:
        `share`: of the queries, in percent, that have such an answer. `precision`: how many of
        these are right, in percent, None if there are none; `precision_interval`: by a bootstrap
        over groups of linked items.
    """
    columns = [list(sizes).index(m) for m in (found.query, found.target)]
    linked = links[:, columns].numpy()
    linked = linked[(linked >= 0).all(axis=1)]
    labels = components(linked, [sizes[found.query], sizes[found.target]])[0]
    trusted = found.score.double() >= least
    right = trusted & found.right
    values = torch.stack([trusted, right], dim=1).double().numpy()
    sums = cluster_sums([labels[found.queries.numpy()]], [values])
    drawn = resample(sums, RESAMPLES, seed)
    return {
        "share": 100 * float(trusted.double().mean()),
        "precision": 100 * float(right.sum() / trusted.sum()) if trusted.any() else None,
        "precision_interval": None if drawn is None else interval(share(drawn[:, 1], drawn[:, 0])),
    }


def precision_curve(found: Answers) -> tuple[np.ndarray, np.ndarray]:
    """(share of queries answered, precision of these answers), in percent, the surest first."""
    order = found.score.argsort(descending=True, stable=True)
    right = found.right[order].double().numpy()
    count = np.arange(1, len(right) + 1)
    return 100 * count / len(right), 100 * np.cumsum(right) / count
