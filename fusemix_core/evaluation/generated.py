"""Measures of generated items, by embeddings of a judge that had no part in making them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.evaluation.bootstrap import interval, resample, share

_ROUNDING = 1e-6
"""Cosines that differ by less are equal."""


def concept_ranks(rows: Tensor, concepts: Tensor, centroids: Tensor) -> Tensor:
    """The 0-based rank of each row's own concept among all, by cosine with their centroids.

    Args:
        rows: `[n, d]`.
        concepts: int64 `[n]`, indices of `centroids`.
        centroids: `[C, d]`.

    Returns:
        int64 `[n]`. As in retrieval a tie counts against the row.
    """
    scores = normalize(rows, dim=1) @ normalize(centroids, dim=1).T
    own = scores.gather(1, concepts[:, None])
    return (scores >= own - _ROUNDING).sum(dim=1) - 1


def left_out_ranks(rows: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
    """`concept_ranks` of real items, each against the centroids of all others.

    The result is the judge's own limit. Items without another one of their concept are left out.

    Returns:
        (int64 `[m]`, which of the rows; int64 `[m]`, their ranks).
    """
    unit = normalize(rows, dim=1)
    count = int(concepts.max()) + 1
    sums = torch.zeros(count, unit.shape[1], dtype=unit.dtype).index_add(0, concepts, unit)
    many = torch.bincount(concepts, minlength=count)
    measured = torch.nonzero(many[concepts] > 1)[:, 0]
    scores = unit[measured] @ normalize(sums, dim=1).T
    scores[:, many == 0] = -2.0
    own = concepts[measured, None]
    others = normalize(sums[concepts[measured]] - unit[measured], dim=1)
    scores.scatter_(1, own, (unit[measured] * others).sum(dim=1, keepdim=True))
    return measured, (scores >= scores.gather(1, own) - _ROUNDING).sum(dim=1) - 1


def centroids(rows: Tensor, concepts: Tensor, count: int) -> Tensor:
    """`[count, d]`: the mean of each concept's rows at unit norm; of one without rows zeros."""
    unit = normalize(rows, dim=1)
    sums = torch.zeros(count, unit.shape[1], dtype=unit.dtype).index_add(0, concepts, unit)
    return normalize(sums, dim=1)


def wins(scores: Tensor, own: Tensor) -> Tensor:
    """For each row of `scores [n, m]` the share of the other columns that its own one beats, `[n]`.

    With scores of generated images against all sounds, the mean is the audio-image similarity
    (AIS); against a real image of each item, it is the image-image similarity (IIS), as
    SonicDiffusion (arXiv:2405.00878) reports them. Chance is one half. A tie is not a win.

    Args:
        scores: larger is closer.
        own: int64 `[n]`, the column of each row's own item.
    """
    return (scores.gather(1, own[:, None]) > scores).double().sum(dim=1) / (scores.shape[1] - 1)


def kernel_distance(made: Tensor, real: Tensor) -> float:
    """The kernel inception distance of two sets of rows, `[n, d]` and `[m, d]`, at least two each.

    The unbiased estimate of the squared maximum mean discrepancy by the kernel (x·y / d + 1)³
    (Bińkowski et al., arXiv:1801.01401). It may be below 0. The rows are a judge's, not those of
    Inception: compare values of one judge only.
    """
    made, real = made.double(), real.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(rows: Tensor) -> Tensor:
        values, count = kernel(rows, rows), len(rows)
        return (values.sum() - values.diagonal().sum()) / (count * (count - 1))

    return float(within(made) + within(real) - 2 * kernel(made, real).mean())


def diversity(rows: Tensor, sources: Tensor) -> float | None:
    """The mean distance (1 − cosine) of two items of the same source; None if none has two.

    Args:
        rows: `[n, d]`.
        sources: int64 `[n]`.
    """
    unit = normalize(rows.double(), dim=1)
    same = (sources[:, None] == sources[None]).triu(1)
    if not same.any():
        return None
    return float((1 - unit @ unit.T)[same].mean())


def nearest_distances(rows: Tensor, others: Tensor) -> Tensor:
    """The root mean square distance of each row `[n, p]` to the nearest of `others [m, p]`."""
    return torch.cdist(rows.double(), others.double()).min(dim=1).values / rows.shape[1] ** 0.5


def mean_with_interval(
    values: Tensor | np.ndarray, sources: Sequence[int] | Tensor, resamples: int, seed: int
) -> tuple[float, list[float] | None]:
    """The mean of values in percent, and its bootstrap interval over sources.

    Args:
        values: one per item, 0 to 1.
        sources: of each item; what is drawn are whole sources.
        resamples, seed: of the bootstrap.
    """
    sums = _by_source(values, sources)
    drawn = resample(sums, resamples, seed)
    bounds = None if drawn is None else interval(share(drawn[:, 0], drawn[:, 1]))
    return float(100 * sums[:, 0].sum() / sums[:, 1].sum()), bounds


def ratio_with_interval(
    values: Tensor, others: Tensor, sources: Tensor, resamples: int, seed: int
) -> tuple[float | None, list[float] | None]:
    """The mean of `values` over that of `others`, and its interval: both are of the same items."""
    sums = np.concatenate([_by_source(v, sources)[:, :1] for v in (values, others)], axis=1)
    drawn = resample(sums, resamples, seed)
    total = sums.sum(axis=0)
    if drawn is None or not total[1]:
        return (float(total[0] / total[1]) if total[1] else None), None
    ratios = drawn[drawn[:, 1] > 0]
    return float(total[0] / total[1]), interval(ratios[:, 0] / ratios[:, 1])


def difference_with_interval(
    values: Tensor, others: Tensor, sources: Tensor, resamples: int, seed: int
) -> tuple[float, list[float] | None]:
    """The mean of `values` less that of `others`, in percent points, and its interval: both are of
    the same items."""
    sums = _by_source(values.double() - others.double(), sources)
    drawn = resample(sums, resamples, seed)
    bounds = None if drawn is None else interval(share(drawn[:, 0], drawn[:, 1]))
    return float(100 * sums[:, 0].sum() / sums[:, 1].sum()), bounds


def _by_source(values: Tensor | np.ndarray, sources: Sequence[int] | Tensor) -> np.ndarray:
    """float64 `[S, 2]`: the sum of the values of each source, and how many there are."""
    _, inverse = np.unique(np.asarray(sources), return_inverse=True)
    sums = np.zeros((inverse.max() + 1, 2))
    np.add.at(sums, inverse, np.stack([np.asarray(values, np.float64), np.ones(len(inverse))], 1))
    return sums
