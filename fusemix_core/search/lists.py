"""Lists of similar rows, made by faiss; and a trial of how many a query has to look into."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import faiss
import numpy as np

from fusemix_core.search.derived import Derived
from fusemix_core.search.parts import Part
from fusemix_core.search.scan import nearest

_SAMPLE = 32
"""Rows per list from which the middles of the lists are found."""
_ROUNDS = 6
_TRIES = 64
_BEST = 10
_ENOUGH = 0.97
"""The share of the best ten that a trial has to find."""
_AT_ONCE = 16_384


def padded(width: int) -> int:
    """The width with zeros behind it: faiss is fast if it is a multiple of 16."""
    return -(-width // 16) * 16


def made(
    parts: Sequence[Part], read: Callable[[np.ndarray], np.ndarray], lists: int, dim: int
) -> Derived:
    """Make lists of the rows of an index that are not removed.

    Args:
        parts: The index.
        read: int64 places among all rows → float32 rows `[n, dim + K]`.
        lists: How many; 0: four times the root of the number of rows.
        dim: Numbers per embedding.
    """
    alive = np.flatnonzero(np.concatenate([one.alive for one in parts]))
    lists = min(lists or round(4 * math.sqrt(len(alive))), len(alive))
    draw = np.random.default_rng(0)
    sample = np.sort(draw.permutation(alive)[: max(_SAMPLE * lists, 256)])
    first = read(sample)
    width = padded(first.shape[1])
    middles = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFScalarQuantizer(
        middles, width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter, index.cp.seed, index.cp.spherical = _ROUNDS, 0, True
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = _SAMPLE, 1
    index.train(wide(first, width))
    derived = grown(Derived(index, (), len(alive), 0, 0.0), parts)
    probes, recall = _trial(derived, parts, read, alive, dim)
    return replace(derived, probes=probes, recall=recall)


def grown(derived: Derived, parts: Sequence[Part]) -> Derived:
    """The lists with the rows of further parts added, but for removed ones."""
    index, covers = derived.index, list(derived.covers)
    start = sum(rows for _, rows in covers)
    for one in parts:
        alive, rows = np.flatnonzero(one.alive), one.segment.all_rows()
        for at in range(0, len(alive), _AT_ONCE):
            some = alive[at : at + _AT_ONCE]
            index.add_with_ids(wide(rows[some], index.d), start + some)
        covers.append((one.name, len(one.segment)))
        start += len(one.segment)
    return replace(derived, covers=tuple(covers))


def wide(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows with zeros behind them, float32 `[n, width]`."""
    out = np.zeros((len(rows), width), np.float32)
    out[:, : rows.shape[1]] = rows
    return out


def _trial(
    derived: Derived,
    parts: Sequence[Part],
    read: Callable[[np.ndarray], np.ndarray],
    alive: np.ndarray,
    dim: int,
) -> tuple[int, float]:
    """(how many lists to look into; the share of the best ten that are found there).

    The queries are rows with noise, as an index has no others: the noise is as long as the rows
    and varies in each direction as they do, so that cosines are about 0.7.
    """
    index, draw = derived.index, np.random.default_rng(1)
    queries = read(draw.choice(alive, min(_TRIES, len(alive)), replace=False))
    rows = queries[:, :dim].copy()
    noise = rows.std(axis=0) * draw.standard_normal(rows.shape, np.float32)
    scale = np.linalg.norm(rows) / max(float(np.linalg.norm(noise)), 1e-30)
    queries[:, :dim] = rows + scale * noise
    queries[:, dim:] = 0
    if (kept := queries.shape[1] - dim) > 0:
        queries[np.arange(len(queries)), dim + np.arange(len(queries)) % kept] = 1
    count = min(_BEST, len(alive))
    segments = [one.segment for one in parts]
    living = np.concatenate([one.alive for one in parts])
    best, _ = nearest(segments, read, queries, count, living, dim)
    probes = min(8, index.nlist)
    while True:
        how = faiss.SearchParametersIVF(nprobe=probes)
        _, found = index.search(wide(queries, index.d), 6 * _BEST, params=how)
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(best, found, strict=True)]))
        if recall >= _ENOUGH or probes == index.nlist:
            return probes, round(recall, 4)
        probes = min(index.nlist, math.ceil(1.25 * probes))
