"""Retrieval beside its baselines: a random order, and other models on the same queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.evaluation.chance import chance
from fusemix_core.evaluation.directions import (
    KS,
    Direction,
    hits_of_clusters,
    resampled_recalls,
)
from fusemix_core.measured import Measured
from fusemix_core.sections import Share, Table

CHANCE = "chance"
"""The name of the baseline that is a random order."""


def compared(
    directions: Sequence[Direction],
    others: Mapping[str, Sequence[Direction]],
    links: np.ndarray,
    sizes: Mapping[str, int],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The measures of baselines on the queries of a model, and by how much the model is ahead.

    Args:
        directions: the model's.
        others: baseline → its directions, which may be fewer.
        links: the split's links, a column for each modality of `sizes`, in that order.
        sizes: modality → how many items it has.
        resamples, seed: of the bootstrap.

    Returns:
        baseline, `chance` first → `mean_r1`, `mean_recall`, `directions` (as `retrieval` has them)
        and `ahead`: the model's mean R@1 less the baseline's, in percent points, also in each
        direction. `ahead_interval` is that of the paired difference: what the bootstrap draws is
        groups of linked items, for both at once.
    """
    expected = {d.name: chance(d.positives, KS) for d in directions}
    found = {CHANCE: _beside(directions, expected, None, links, sizes, resamples, seed)}
    for name, other in others.items():
        metrics = {d.name: d.metrics() for d in other}
        hits = {d.name: d.hits() for d in other}
        found[name] = _beside(directions, metrics, hits, links, sizes, resamples, seed)
    return found


def _beside(
    directions: Sequence[Direction],
    metrics: Mapping[str, dict[str, Any]],
    hits: Mapping[str, np.ndarray] | None,
    links: np.ndarray,
    sizes: Mapping[str, int],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The entry of a baseline with these metrics and, unless they are expectations, these hits."""
    both = [d for d in directions if d.name in metrics]
    more = []
    for d in both:
        own = d.hits()
        less = own[:, :1] * [metrics[d.name][f"r{k}"] / 100 for k in KS]
        theirs = less if hits is None else hits[d.name][:, 1:]
        more.append(np.concatenate([own[:, :1], own[:, 1:] - theirs], axis=1))
    drawn = resampled_recalls(both, hits_of_clusters(both, more, links, sizes), resamples, seed)
    table: dict[str, dict[str, Any]] = {}
    for d, values in zip(both, more, strict=True):
        between = None if drawn is None else interval(drawn[d.name][:, 0])
        ahead = 100 * float(values[:, 1].mean())
        table[d.name] = {**metrics[d.name], "ahead": ahead, "ahead_interval": between}
    means = None if drawn is None else np.mean([drawn[d.name][:, 0] for d in both], axis=0)
    return {
        "mean_r1": float(np.mean([row["r1"] for row in table.values()])),
        "mean_recall": float(np.mean([row[f"r{k}"] for row in table.values() for k in KS])),
        "ahead": float(np.mean([row["ahead"] for row in table.values()])),
        "ahead_interval": None if means is None else interval(means),
        "directions": table,
    }


def comparisons(metrics: Mapping[str, Any]) -> list[Table]:
    """The means of a model and its baselines, and folded each direction."""
    own, baselines = metrics["directions"], metrics["baselines"]
    recalls = [f"R@{k}" for k in KS]
    means = [["this model", *_means(own), "–"]]
    rows = []
    for name, one in baselines.items():
        means.append([name, *_means(one["directions"]), ahead(one)])
        for direction, row in one["directions"].items():
            shares = [Share(row[f"r{k}"]) for k in KS]
            cells = [*shares, row["median_rank"], Share(row["map"]), ahead(row)]
            rows.append([f"{direction.replace('->', ' → ', 1)}: {name}", *cells])
    columns = ["direction", *recalls, "median rank", "mAP", "ahead at R@1"]
    caption = f"Beside baselines on the same queries: means over directions. {_lead(baselines)}"
    return [
        Table(["", *recalls, "ahead at R@1"], means, caption),
        Table(columns, rows, folded="Baselines by direction"),
    ]


def _lead(baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """Which baselines the model is ahead of, as `Ahead of chance; not shown to be ahead of cca`."""
    said: dict[str, list[str]] = {"ahead of": [], "not shown to be ahead of": [], "behind": []}
    for name, one in baselines.items():
        low, high = one["ahead_interval"] or (0.0, 0.0)
        said[
            "ahead of" if low > 0 else "behind" if high < 0 else "not shown to be ahead of"
        ].append(name)
    parts = [f"{how} {' and '.join(names)}" for how, names in said.items() if names]
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def _means(directions: Mapping[str, Mapping[str, Any]]) -> list[Share]:
    return [Share(float(np.mean([row[f"r{k}"] for row in directions.values()]))) for k in KS]


def described(baselines: Mapping[str, Measured]) -> str:
    """The baselines described, as a note below their numbers."""
    known = {CHANCE: "all orders equally likely"} | {n: b.about for n, b in baselines.items()}
    return "; ".join(f"{name}: {about}" for name, about in known.items()) + "."


def ahead(row: Mapping[str, Any]) -> str:
    """By how much a model is ahead of a baseline, as `+3.1 [1.0, 5.2]`."""
    between = row["ahead_interval"]
    shown = f"{row['ahead']:+.1f}"
    return shown if between is None else f"{shown} [{between[0]:.1f}, {between[1]:.1f}]"
