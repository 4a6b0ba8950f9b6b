"""Cross-modal retrieval metrics: recall, median rank, mean average precision, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import DataError
from fusemix_core.evaluation.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    cluster_sums,
    components,
    interval,
    resample,
    share,
)
from fusemix_core.evaluation.ranking import (
    Positives,
    Ranks,
    cosine,
    rank_direction,
)
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Measured, Score
from fusemix_core.sections import Section, Share, Table, Tile

KS = (1, 5, 10)


def retrieval(
    embeddings: Mapping[str, Tensor],
    links: Tensor,
    score: Score = cosine,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    device: torch.device | str | None = None,
    max_scores: int | None = None,
    of: Collection[str] = (),
) -> dict[str, Any]:
    """Retrieval between every ordered pair of modalities of a split.

    embeddings: modality → unit-norm `[items, d]`; links: the split's rows of the link table, int64
    `[m, K]`, columns in the order of `embeddings`, -1 where missing. Queries are the unique items
    of one modality that have a partner in the other; the gallery is all unique items of the other
    in these links; every linked item is a positive. A query's rank is that of its best positive;
    ties and NaN count against it (see `ranking.rank`). `score` sees tiles of at most `max_scores`.
    Where modalities are named by `of`, only directions from or to one of them count.

    Returns, recalls, map and mrr in percent, ranks counted from 1:

        mean_r1, mean_r1_interval          mean of R@1 over all directions
        mean_recall                        mean of R@1, R@5 and R@10 over all directions
        directions: {"image->text": {queries, gallery, positives, clusters,
                     r1, r5, r10, r1_interval, …, median_rank, map, mrr}}
        pairs: {"image-text": {mean_r1, mean_r1_interval, mean_recall, clusters}}
        confidence, resamples, seed

    Intervals are percentile bootstraps. Captions of one image rise and fall together, so what is
    drawn is not queries but connected components of the links between the two modalities (of all
    links for the mean over all directions): with one partner each that is the usual bootstrap over
    queries. The two directions of a pair share the draws. An interval is None where everything
    hangs together in one component, or `resamples` is 0.
    """
    found = ranked(embeddings, links, score, device=device, max_scores=max_scores, of=of)
    sizes = {m: len(rows) for m, rows in embeddings.items()}
    return summed_up(found, links.cpu().numpy(), sizes, resamples, seed)


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


def summed_up(
    directions: list[Direction],
    links: np.ndarray,
    sizes: Mapping[str, int],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The result of `retrieval` from its directions; sizes: modality → how many items."""
    modalities = list(sizes)
    metrics = {d.name: d.metrics() for d in directions}
    pairs = {}
    for d in directions:
        both = [e for e in directions if {e.query, e.target} == {d.query, d.target}]
        if both[0] is not d:
            continue
        columns = [modalities.index(d.query), modalities.index(d.target)]
        linked = links[:, columns]
        linked = linked[(linked >= 0).all(axis=1)]
        sums = _sums(both, linked, {m: sizes[m] for m in (d.query, d.target)})
        recalls = _resampled(both, sums, resamples, seed)
        for e in both:
            metrics[e.name] |= {"clusters": len(sums)} | {
                f"r{k}_interval": _interval(recalls, e.name, i) for i, k in enumerate(KS)
            }
        pairs[f"{d.query}-{d.target}"] = _means(both, metrics, recalls) | {"clusters": len(sums)}
    everything = _resampled(directions, _sums(directions, links, sizes), resamples, seed)
    return {
        **_means(directions, metrics, everything),
        "directions": metrics,
        "pairs": pairs,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
    }


def _sums(directions: list[Direction], links: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    """Queries and hits by connected component of `links`, `[C, directions · (1 + ks)]`."""
    labels = dict(zip(sizes, components(links, list(sizes.values())), strict=True))
    queries = [labels[d.query][d.positives.queries.numpy()] for d in directions]
    return cluster_sums(queries, [d.hits() for d in directions])


def _resampled(
    directions: list[Direction], sums: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray] | None:
    """Direction → recalls `[resamples, len(ks)]`."""
    drawn = resample(sums, resamples, seed)
    if drawn is None:
        return None
    parts = np.split(drawn, len(directions), axis=1)
    return {d.name: share(p[:, 1:], p[:, :1]) for d, p in zip(directions, parts, strict=True)}


def _interval(recalls: dict[str, np.ndarray] | None, name: str, k: int) -> list[float] | None:
    return None if recalls is None else interval(recalls[name][:, k])


def _means(
    directions: list[Direction],
    metrics: Mapping[str, Mapping[str, Any]],
    recalls: dict[str, np.ndarray] | None,
) -> dict[str, Any]:
    drawn = None if recalls is None else np.mean([recalls[d.name][:, 0] for d in directions], 0)
    return {
        "mean_r1": float(np.mean([metrics[d.name]["r1"] for d in directions])),
        "mean_r1_interval": None if drawn is None else interval(drawn),
        "mean_recall": float(np.mean([metrics[d.name][f"r{k}"] for d in directions for k in KS])),
    }


class RetrievalEvaluator(Evaluator):
    """`retrieval` by the model's scorer and, if that is another, by cosine too (`cosine`).

    `resamples=0` leaves out the intervals.
    """

    def __init__(self, resamples: int = RESAMPLES) -> None:
        self.resamples = resamples

    def __call__(self, data: Measured) -> dict[str, Any]:
        def found(score: Score) -> dict[str, Any]:
            return retrieval(
                data.embeddings,
                data.links,
                score,
                resamples=self.resamples,
                seed=data.seed,
                device=data.device,
                of=data.added,
            )

        metrics = {"unit": "percent", "scorer": data.scorer, **found(data.score)}
        if data.scorer != "cosine":
            metrics["cosine"] = found(cosine)
        return metrics

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        chosen = ", chosen on validation" if "cosine" in metrics else ""
        tables = [_table(metrics, f"Scored with {metrics['scorer']}{chosen}")]
        if "cosine" in metrics:
            tables.append(_table(metrics["cosine"], "Scored with cosine"))
        section = Section(
            "Retrieval",
            f"On the {data.split} split, in percent, with 95% bootstrap intervals over groups of "
            "linked items. Ties count against the query.",
            tables=tables,
            headline=_headline(metrics),
        )
        return [section]


def _table(metrics: Mapping[str, Any], caption: str) -> Table:
    """One row per direction, and their mean."""
    caption += f". Mean of R@1, R@5 and R@10 together: {metrics['mean_recall']:.1f}"
    columns = ["direction", *(f"R@{k}" for k in KS)]
    columns += ["chance R@1", "median rank", "mAP", "queries", "gallery"]
    directions = metrics["directions"]
    rows = [
        [
            _arrow(name),
            *(Share(d[f"r{k}"], d.get(f"r{k}_interval")) for k in KS),
            _chance(d),
            d["median_rank"],
            Share(d["map"]),
            d["queries"],
            d["gallery"],
        ]
        for name, d in directions.items()
    ]
    means = [float(np.mean([d[f"r{k}"] for d in directions.values()])) for k in KS[1:]]
    first = Share(metrics["mean_r1"], metrics["mean_r1_interval"])
    return Table(columns, rows, caption, ["mean", first, *map(Share, means), *[None] * 5])


def _headline(metrics: Mapping[str, Any]) -> list[Tile]:
    """The mean R@1, and R@10 of the first two directions."""
    directions = metrics["directions"]
    chance = float(np.mean([_chance(d) for d in directions.values()]))
    mean = Share(metrics["mean_r1"], metrics["mean_r1_interval"])
    return [Tile("mean R@1", mean, f"chance {chance:.2g}%")] + [
        Tile(f"R@10 {_arrow(name)}", Share(d["r10"], d["r10_interval"]), f"among {d['gallery']:,}")
        for name, d in list(directions.items())[:2]
    ]


def _chance(direction: Mapping[str, Any]) -> float:
    """The expected R@1, in percent, of a random order."""
    return 100 * direction["positives"] / (direction["queries"] * direction["gallery"])


def _arrow(direction: str) -> str:
    """`image->text` as people write it."""
    return direction.replace("->", " → ", 1)
