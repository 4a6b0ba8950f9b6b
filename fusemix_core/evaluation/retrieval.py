"""Cross-modal retrieval metrics: recall, median rank, mean average precision, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.evaluation.bootstrap import CONFIDENCE, RESAMPLES, interval
from fusemix_core.evaluation.compared import compared, comparisons, described
from fusemix_core.evaluation.directions import (
    KS,
    Direction,
    hits_of_clusters,
    ranked,
    resampled_recalls,
)
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Measured, Score
from fusemix_core.sections import Section, Share, Table, Tile


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
        own = {m: sizes[m] for m in (d.query, d.target)}
        sums = hits_of_clusters(both, [e.hits() for e in both], linked, own)
        recalls = resampled_recalls(both, sums, resamples, seed)
        for e in both:
            metrics[e.name] |= {"clusters": len(sums)} | {
                f"r{k}_interval": _interval(recalls, e.name, i) for i, k in enumerate(KS)
            }
        pairs[f"{d.query}-{d.target}"] = _means(both, metrics, recalls) | {"clusters": len(sums)}
    sums = hits_of_clusters(directions, [d.hits() for d in directions], links, sizes)
    everything = resampled_recalls(directions, sums, resamples, seed)
    return {
        **_means(directions, metrics, everything),
        "directions": metrics,
        "pairs": pairs,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
    }


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

    `baselines` has what a random order and each of `Measured.baselines` give on the same queries
    (see `evaluation.compared`). `resamples=0` leaves out the intervals.
    """

    def __init__(self, resamples: int = RESAMPLES) -> None:
        self.resamples = resamples

    def __call__(self, data: Measured) -> dict[str, Any]:
        links = data.links.cpu().numpy()
        sizes = {m: len(rows) for m, rows in data.embeddings.items()}
        directions = _directions(data, data.score)
        found = summed_up(directions, links, sizes, self.resamples, data.seed)
        others = {name: _directions(other, other.score) for name, other in data.baselines.items()}
        metrics = {
            "unit": "percent",
            "scorer": data.scorer,
            **found,
            "baselines": compared(directions, others, links, sizes, self.resamples, data.seed),
        }
        if data.scorer != "cosine":
            ranks = _directions(data, cosine)
            metrics["cosine"] = summed_up(ranks, links, sizes, self.resamples, data.seed)
        return metrics

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        chosen = ", chosen on validation" if "cosine" in metrics else ""
        means, by_direction = comparisons(metrics)
        tables = [_table(metrics, f"Scored with {metrics['scorer']}{chosen}"), means]
        if "cosine" in metrics:
            tables.append(_table(metrics["cosine"], "Scored with cosine"))
        section = Section(
            "Retrieval",
            f"On the {data.split} split, in percent, with 95% bootstrap intervals over groups of "
            "linked items. Ties count against the query.",
            tables=[*tables, by_direction],
            note=described(data.baselines),
            headline=_headline(metrics),
        )
        return [section]


def _directions(data: Measured, score: Score) -> list[Direction]:
    return ranked(data.embeddings, data.links, score, device=data.device, of=data.added)


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
    """The mean R@1, and R@10 of the first two directions, with those of the baselines."""
    directions, baselines = metrics["directions"], metrics["baselines"]
    first = {name: one["mean_r1"] for name, one in baselines.items()}
    tiles = [
        Tile("mean R@1", Share(metrics["mean_r1"], metrics["mean_r1_interval"]), _notes(first))
    ]
    for name, d in list(directions.items())[:2]:
        known = {n: b["directions"] for n, b in baselines.items() if name in b["directions"]}
        beside = _notes({n: own[name]["r10"] for n, own in known.items()})
        tenth = Share(d["r10"], d["r10_interval"])
        tiles.append(Tile(f"R@10 {_arrow(name)}", tenth, f"{beside}; among {d['gallery']:,}"))
    return tiles


def _notes(values: Mapping[str, float]) -> str:
    """`chance 0.37%, cca 24.7%`."""
    shown = {name: f"{v:.1f}" if v >= 1 else f"{v:.2g}" for name, v in values.items()}
    return ", ".join(f"{name} {value}%" for name, value in shown.items())


def _chance(direction: Mapping[str, Any]) -> float:
    """The expected R@1, in percent, of a random order."""
    return 100 * direction["positives"] / (direction["queries"] * direction["gallery"])


def _arrow(direction: str) -> str:
    """`image->text` as people write it."""
    return direction.replace("->", " → ", 1)
