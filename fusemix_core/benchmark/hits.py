"""Which queries of the test split a method answered rightly, in the few bytes that a line
contains."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusemix_core.benchmark.lines import CHOSEN, Line, of_scorer
from fusemix_core.evaluation.bootstrap import cluster_sums, components, paired_interval
from fusemix_core.evaluation.directions import Direction


def queries_of(
    directions: Sequence[Direction], links: np.ndarray, sizes: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Direction → the `count` of its queries, in the order of the test items, and their `groups`:
    queries with one label are linked, directly or not, across all directions."""
    labels = dict(zip(sizes, components(links, list(sizes.values())), strict=True))
    own = {d.name: labels[d.query][d.positives.queries.numpy()] for d in directions}
    names = np.unique(np.concatenate(list(own.values())))
    return {
        name: {"count": len(found), "groups": packed_labels(np.searchsorted(names, found))}
        for name, found in own.items()
    }


def hits_of(directions: Sequence[Direction]) -> dict[str, str]:
    """Direction → one bit for each query: whether a partner of it comes first."""
    return {d.name: packed_bits(d.ranks.hits(1).numpy()) for d in directions}


def packed_bits(bits: np.ndarray) -> str:
    """bool `[n]` in base64, eight to a byte, the first in the highest place."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpacked_bits(text: str, count: int) -> np.ndarray:
    """bool `[count]` of `packed_bits`."""
    found = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    return np.unpackbits(found, count=count).astype(bool)


def packed_labels(labels: np.ndarray) -> str:
    """Labels as their steps from each to the next: of pairs, which all are 1, next to nothing."""
    steps = np.diff(labels, prepend=0).astype("<i4")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def unpacked_labels(text: str) -> np.ndarray:
    """int64 `[n]` of `packed_labels`."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i4")
    return steps.astype(np.int64).cumsum()


def difference(
    first: Mapping[int, Line], second: Mapping[int, Line], scorer: str = CHOSEN
) -> tuple[float, list[float] | None] | None:
    """How far the first method is ahead of the second in R@1, and the paired 95% interval.

    Args:
        first, second: The lines of each method by seed, at one place (set, encoders, size). Those
            seeds count that both have, with the hits of the same test items.
        scorer: A scorer's name, or `CHOSEN`: that of each line.

    Returns:
        The mean over seeds of the difference in percent points, and its bootstrap interval over
        seeds and linked groups of test items. None where no seed has both methods' hits.

    Example:
        by_method = {e.method: e.lines for e in summarise(lines)}
        difference(by_method["auto"], by_method["csa"])
    """
    pairs = [(line, second[seed]) for seed, line in first.items() if seed in second]
    pairs = [(a, b) for a, b in pairs if _comparable(a, b)]
    if not pairs:
        return None
    sums = [_sums(a, b, scorer) for a, b in pairs]
    totals = [s.sum(axis=0) for s in sums]  # [D, 2] of each seed
    mean = float(np.mean([100 * (t[:, 1] / t[:, 0]).mean() for t in totals]))
    shared = len({line["test_items"] for line, _ in pairs}) == 1
    return mean, paired_interval(sums, shared=shared)


def _comparable(first: Line, second: Line) -> bool:
    same = first["test_items"] == second["test_items"]
    return same and "hits" in first and "hits" in second


def _sums(first: Line, second: Line, scorer: str) -> np.ndarray:
    """`[C, D, 2]`, as `paired_interval` takes it."""
    labels, values = [], []
    hits = [of_scorer(line, line["hits"], scorer) for line in (first, second)]
    for name, queries in first["queries"].items():
        ours, theirs = (unpacked_bits(h[name], queries["count"]).astype(float) for h in hits)
        labels.append(unpacked_labels(queries["groups"]))
        values.append(np.stack([np.ones(len(ours)), ours - theirs], axis=1))
    sums = cluster_sums(labels, values)
    return sums.reshape(len(sums), -1, 2)
