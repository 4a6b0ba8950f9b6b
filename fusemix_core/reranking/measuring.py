"""Recall before and after re-ranking, on the same queries, and what a query costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.evaluation.bootstrap import CONFIDENCE, RESAMPLES, interval
from fusemix_core.evaluation.directions import KS, Direction, hits_of_clusters, resampled_recalls
from fusemix_core.evaluation.ranking import Positives, rank
from fusemix_core.evaluation.retrieval import summed_up
from fusemix_core.reranker import Reranker
from fusemix_core.reranking.scoring import score_shortlist
from fusemix_core.reranking.split import Shortlist, Split, shortlist

MOST_QUERIES = 2_000
"""Queries of a direction that are measured, at most; the gallery is whole."""
TIMED = 24
"""Queries whose time is taken."""
_BELOW = 1e6
"""How far below the short list the other items of a gallery are: more than any score."""


@dataclass(frozen=True)
class Compared:
    """The ranks of a direction before and after re-ranking."""

    before: Direction
    after: Direction


def measure(
    network: Reranker,
    weights: Mapping[str, float],
    split: Split,
    top_k: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a re-ranker on a split.

    Args:
        network: in eval mode.
        weights: direction (`image->text`) → the weight of its score; see `Mix`.
        split: the pairs. Of more than `MOST_QUERIES` queries, so many are taken, evenly.
        top_k: how many results are ranked anew.
        resamples, seed: of the bootstrap.

    Returns:
        `before` and `after`, each as `evaluation.retrieval` gives it; `gain`: `mean` and the
        directions, each with `r1`, `r5`, `r10` in percent points and `r1_interval`, … of the
        paired difference; `cost`: `ms`, the median milliseconds of a query whose tokens and those
        of the candidates are there, `candidates` and `threads`.

    Example:
        found = measure(fitted.network, fitted.mix.weights, test, 32)
        print(found["gain"]["mean"]["r1"], found["gain"]["mean"]["r1_interval"])
    """
    ways = compared(network, weights, split, top_k)
    return summary(ways, network, split, top_k, resamples=resamples, seed=seed)


def compared(
    network: Reranker, weights: Mapping[str, float], split: Split, top_k: int
) -> list[Compared]:
    """The ranks of each direction before and after re-ranking; arguments as of `measure`."""
    return [_direction(network, weights, split, way, top_k) for way in split.directions]


def summary(
    ways: Sequence[Compared],
    network: Reranker,
    split: Split,
    top_k: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The result of `measure`, from the ranks of each direction."""
    before, after = [way.before for way in ways], [way.after for way in ways]
    links = split.tokens.links.numpy()
    sizes = {m: len(table) for m, table in split.tokens.tables.items()}
    return {
        "unit": "percent",
        "top_k": top_k,
        "before": summed_up(before, links, sizes, resamples, seed),
        "after": summed_up(after, links, sizes, resamples, seed),
        "gain": gains(ways, links, sizes, resamples, seed),
        "cost": cost(network, split, top_k),
        "confidence": CONFIDENCE,
    }


def _direction(
    network: Reranker, weights: Mapping[str, float], split: Split, way: tuple[str, str], top_k: int
) -> Compared:
    """The ranks of one direction."""
    query, target = way
    positives = _at_most(split.positives(query, target), MOST_QUERIES)
    short = shortlist(split, query, target, top_k, MOST_QUERIES)
    weight = weights.get(short.name, 0.0)
    mixed = short.scores.double()
    if weight:
        mixed = mixed + weight * score_shortlist(network, split.tokens, short).double()
    columns = torch.searchsorted(positives.gallery, short.candidates)

    def tile(rows: Tensor, places: Tensor, anew: bool) -> Tensor:
        numbers, items = positives.queries[rows[:, 0]], positives.gallery[places[:, 0]]
        parts = [scores for _, scores in split.scores(numbers, items, query, target)]
        scores = torch.cat(parts).cpu().double()
        if not anew:
            return scores
        there = torch.full((len(scores), len(positives.gallery)), torch.nan, dtype=torch.float64)
        there.scatter_(1, columns[rows[:, 0]], mixed[rows[:, 0]])
        there = there[:, places[:, 0]]
        return torch.where(there.isnan(), scores - _BELOW, there)

    def ranked(score: Callable[[Tensor, Tensor], Tensor]) -> Direction:
        asked = torch.arange(len(positives.queries))[:, None]
        gallery = torch.arange(len(positives.gallery))[:, None]
        found = rank(asked, gallery, positives.pairs, score)
        return Direction(query, target, positives, found)

    before = ranked(lambda rows, places: tile(rows, places, anew=False))
    return Compared(before, ranked(lambda rows, places: tile(rows, places, anew=bool(weight))))


def _at_most(positives: Positives, most: int) -> Positives:
    """The same gallery with some of the queries, those that `shortlist` takes."""
    count = len(positives.queries)
    if count <= most:
        return positives
    kept = torch.linspace(0, count - 1, most).long()
    place = torch.full((count,), -1)
    place[kept] = torch.arange(most)
    pairs = torch.stack([place[positives.pairs[:, 0]], positives.pairs[:, 1]], dim=1)
    return Positives(positives.queries[kept], positives.gallery, pairs[pairs[:, 0] >= 0])


def gains(
    ways: Sequence[Compared], links: np.ndarray, sizes: Mapping[str, int], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """By how many percent points recall rises, with the intervals of the paired difference.

    Args:
        ways: the directions.
        links: int64 `[m, 2]` of the split.
        sizes: modality → how many items there are.
        resamples, seed: of the bootstrap.
    """
    hits = []
    for way in ways:
        before, after = way.before.hits(), way.after.hits()
        hits.append(np.concatenate([after[:, :1], after[:, 1:] - before[:, 1:]], axis=1))
    after = [way.after for way in ways]
    drawn = resampled_recalls(after, hits_of_clusters(after, hits, links, sizes), resamples, seed)
    found = {}
    for way, own in zip(after, hits, strict=True):
        samples = None if drawn is None else drawn[way.name]
        found[way.name] = _row(100 * own[:, 1:].mean(axis=0), samples)
    means = np.mean([[row[f"r{k}"] for k in KS] for row in found.values()], axis=0)
    both = None if drawn is None else np.mean([drawn[way.name] for way in after], axis=0)
    return {"mean": _row(means, both), **found}


def _row(values: np.ndarray, samples: np.ndarray | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for i, k in enumerate(KS):
        row[f"r{k}"] = float(values[i])
        row[f"r{k}_interval"] = None if samples is None else interval(samples[:, i])
    return row


def cost(network: Reranker, split: Split, top_k: int) -> dict[str, Any]:
    """The time that re-ranking one query takes, if all tokens are there."""
    times, candidates = [], 0
    for query, target in split.directions:
        short = shortlist(split, query, target, top_k, TIMED // 2)
        candidates = max(candidates, short.candidates.shape[1])
        for row in torch.arange(len(short.queries)).split(1):
            began = time.perf_counter()
            _rerank_one(network, split, short[row])
            times.append(1000 * (time.perf_counter() - began))
    return {
        "ms": float(np.median(times)),
        "candidates": candidates,
        "threads": torch.get_num_threads(),
    }


def _rerank_one(network: Reranker, split: Split, short: Shortlist) -> Tensor:
    """The order of one query's candidates."""
    return score_shortlist(network, split.tokens, short)[0].argsort(descending=True)
