"""A gallery in random order: the exact expectation of each measure of retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusemix_core.evaluation.ranking import Positives


def chance(positives: Positives, ks: Sequence[int]) -> dict[str, float]:
    """The expected measures of a direction if all orders of the gallery are equally likely.

    Counted as retrieval is: a query's rank is that of its best partner among the negatives, and
    its average precision is over all partners.

    Args:
        positives: the queries, the gallery and the partners.
        ks: of the recalls.

    Returns:
        `r<k>` for each k, `map` and `mrr`, in percent, and `median_rank`: the median rank of all
        queries in all orders.
    """
    size = len(positives.gallery)
    partners = np.bincount(positives.pairs[:, 0].numpy(), minlength=len(positives.queries))
    counts, times = np.unique(partners, return_counts=True)
    weights = times / times.sum()
    missed = np.zeros(size + 1)
    for count, weight in zip(counts, weights, strict=True):
        missed += weight * _missed(int(count), size)
    harmonic = float((1 / np.arange(1, size + 1)).sum())
    more = (counts - 1) / max(size - 1, 1)  # of another partner at any given place
    precision = (harmonic + (size - harmonic) * more) / size
    return {
        **{f"r{k}": 100 * float(1 - missed[min(k, size)]) for k in ks},
        "median_rank": float(np.argmax(missed <= 0.5)),
        "map": 100 * float(weights @ precision),
        "mrr": 100 * float((-np.diff(missed) / np.arange(1, size + 1)).sum()),
    }


def _missed(partners: int, size: int) -> np.ndarray:
    """float `[size + 1]`: how likely the first k places have none of the partners, for k from 0."""
    place = np.arange(size)
    left = np.maximum(size - partners - place, 0) / (size - place)
    return np.concatenate([[1.0], np.cumprod(left)])
