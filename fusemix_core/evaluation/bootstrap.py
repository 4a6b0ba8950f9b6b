"""Percentile bootstrap over clusters of queries that depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000


def components(links: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Which connected component of the link graph each item is in.

    links: int64 `[m, K]`, -1 where missing; sizes: how many items each modality has. Returns, for
    each modality, int64 labels `[size]`; items that share a link, directly or not, share a label.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    parent = np.arange(offsets[-1])
    nodes = np.where(links >= 0, links + offsets[:-1], -1)
    anchor = np.take_along_axis(nodes, (nodes >= 0).argmax(axis=1)[:, None], axis=1)
    row, column = np.nonzero(nodes >= 0)
    u, v = anchor[row, 0], nodes[row, column]
    while True:
        low, high = np.minimum(parent[u], parent[v]), np.maximum(parent[u], parent[v])
        if (low == high).all():
            return [parent[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
        np.minimum.at(parent, high, low)
        while not np.array_equal(jumped := parent[parent], parent):
            parent = jumped


def cluster_sums(labels: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    """Sums by cluster, `[C, S]`, of groups of queries that share one space of cluster labels.

    labels: int64 `[n_g]` for each group; values: `[n_g, s_g]`. Group g's sums are its own s_g
    columns; S is the sum of all s_g.
    """
    names, inverse = np.unique(np.concatenate(labels), return_inverse=True)
    parts = np.split(inverse, np.cumsum([len(group) for group in labels])[:-1])
    sums = [np.zeros((len(names), v.shape[1])) for v in values]
    for total, part, value in zip(sums, parts, values, strict=True):
        np.add.at(total, part, value)
    return np.concatenate(sums, axis=1)


def resample(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray | None:
    """Totals `[resamples, S]` over C clusters drawn with replacement from `sums [C, S]`.

    Clusters with the same sums are one kind, and only how often each kind is drawn matters; so the
    result does not depend on the order of the clusters. None as in `draw_kinds`.
    """
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    drawn = draw_kinds(counts, resamples, seed)
    return None if drawn is None else drawn @ kinds


def draw_kinds(counts: np.ndarray, resamples: int, seed: int) -> np.ndarray | None:
    """How often each of G kinds comes up, int64 `[resamples, G]`, in drawing with replacement.

    counts: how many there are of each. None where only one thing, or none, can be drawn, or
    `resamples` is 0.
    """
    total = counts.sum()
    if total < 2 or resamples < 1:
        return None
    return np.random.default_rng(seed).multinomial(total, counts / total, size=resamples)


def interval(values: np.ndarray) -> list[float] | None:
    """The percentile interval of bootstrap values, leaving out undefined (NaN) ones. None if more
    than 5% are: a metric that hangs on one or two rows would seem to be sure."""
    known = values[~np.isnan(values)]
    if not len(known) or len(known) < CONFIDENCE * len(values):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    return [float(v) for v in np.percentile(known, [tail, 100 - tail])]


def paired_interval(
    sums: Sequence[np.ndarray],
    *,
    shared: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[float] | None:
    """The interval of the mean difference of two methods over seeds, in percent points.

    Both methods were measured on the same queries, so what is drawn is their difference. Drawn are
    seeds, and clusters of queries. One seed fewer is drawn than there are, which makes the variance
    over seeds unbiased for as few as two (McCarthy & Snowden, 1985).

    Args:
        sums: for each seed `[C, D, 2]`: the queries of each cluster and direction, and the sum over
            them of the first method's hits less the second's.
        shared: whether all seeds have the same clusters in the same order. They are then drawn once
            for all seeds, else for each seed on its own.

    Returns:
        Low and high; None where everything hangs together in one cluster.
    """
    flat = [s.reshape(len(s), -1) for s in sums]
    if shared:
        whole = resample(np.concatenate(flat, axis=1), resamples, seed)
        drawn = None if whole is None else np.split(whole, len(sums), axis=1)
    else:
        drawn = [resample(s, resamples, seed + number) for number, s in enumerate(flat)]
    parts = [d.reshape(resamples, -1, 2) for d in drawn or () if d is not None]
    if len(parts) < len(sums):
        return None
    of_seeds = np.stack([share(p[..., 1], p[..., 0]).mean(axis=1) for p in parts], axis=1)
    take = max(len(sums) - 1, 1)
    even = np.full(len(sums), 1 / len(sums))
    counts = np.random.default_rng([seed, len(sums)]).multinomial(take, even, size=resamples)
    return interval((of_seeds * counts).sum(axis=1) / take)


def share(hits: np.ndarray, of: np.ndarray | int) -> np.ndarray:
    """`hits / of` in percent, NaN where `of` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * hits / of
