"""Ridge regression from moments, and its exact predictions of rows that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = 64
"""Rows of a group that are left out by one system of as many equations; for a larger one the
moments are taken anew."""


@dataclass(frozen=True)
class Moments:
    """The sums over rows that a ridge regression needs.

    Attributes:
        gram: `[D, D]`, the products of the features, whose columns have the mean 0.
        cross: `[D, C]`, the products of features and responses.
        mean: `[C]`, the mean response.
        count: how many rows they are of.
    """

    gram: Tensor
    cross: Tensor
    mean: Tensor
    count: int

    @classmethod
    def of(cls, features: Tensor, responses: Tensor) -> Moments:
        """Those of features `[n, D]`, whose columns have the mean 0, and responses `[n, C]`."""
        mean = responses.mean(dim=0)
        return cls(features.T @ features, features.T @ (responses - mean), mean, len(features))

    def select(self, columns: Tensor) -> Moments:
        """Those of some of the features."""
        return Moments(self.gram[columns][:, columns], self.cross[columns], self.mean, self.count)


def solved(moments: Moments, penalties: Tensor) -> Tensor:
    """The coefficients `[D, C]` that minimise |y - mean - Xb|² + Σ penalty_j b_j².

    Args:
        moments: of the rows.
        penalties: positive, `[D]`.
    """
    return torch.cholesky_solve(moments.cross, _factor(moments, penalties))


def left_out(
    moments: Moments,
    features: Tensor,
    responses: Tensor,
    penalties: Tensor,
    groups: Sequence[Tensor] = (),
) -> Tensor:
    """The predictions of ridge regression for rows that are left out of its fit, exactly.

    The residuals of rows g that are left out together are (I - H_gg)⁻¹ (y - Hy)_g, for the hat
    matrix H of the regression, whose mean response counts as a column (Cook & Weisberg 1982, §2.2).

    Args:
        moments: of all rows.
        features, responses: `[m, D]` and `[m, C]`, those rows, among the ones of the moments.
        penalties: positive, `[D]`.
        groups: int64, rows that are left out together. A row in none is left out by itself.

    Returns:
        `[m, C]`.
    """
    factor = _factor(moments, penalties)
    fitted = features @ torch.cholesky_solve(moments.cross, factor) + moments.mean
    # The rows of L⁻¹Xᵀ: their products are those of the hat matrix.
    half = torch.linalg.solve_triangular(factor, features.T, upper=False).T
    residuals, share = responses - fitted, 1 / moments.count
    leverage = half.square().sum(dim=1) + share
    found = residuals / (1 - leverage).clamp_min(1e-12)[:, None]
    for rows in _by_size(groups):
        if rows.shape[1] > _LARGEST:
            for one in rows:
                rest = _without(moments, features[one], responses[one])
                found[one] = responses[one] - _predicted(rest, features[one], penalties)
            continue
        block = half[rows]  # [g, s, D]
        hat = block @ block.mT + share
        eye = torch.eye(rows.shape[1], dtype=hat.dtype, device=hat.device)
        found[rows] = torch.linalg.solve(eye - hat, residuals[rows])
    return responses - found


def _factor(moments: Moments, penalties: Tensor) -> Tensor:
    return torch.linalg.cholesky(moments.gram + torch.diag(penalties))


@dataclass(frozen=True)
class _Rest:
    """The moments without some rows, and the mean of their features."""

    moments: Moments
    centre: Tensor


def _without(moments: Moments, features: Tensor, responses: Tensor) -> _Rest:
    """The moments without these rows."""
    count = moments.count - len(features)
    centred = responses - moments.mean
    centre, mean = -features.sum(dim=0) / count, -centred.sum(dim=0) / count
    gram = moments.gram - features.T @ features - count * torch.outer(centre, centre)
    cross = moments.cross - features.T @ centred - count * torch.outer(centre, mean)
    return _Rest(Moments(gram, cross, moments.mean + mean, count), centre)


def _predicted(rest: _Rest, features: Tensor, penalties: Tensor) -> Tensor:
    return (features - rest.centre) @ solved(rest.moments, penalties) + rest.moments.mean


def _by_size(groups: Sequence[Tensor]) -> list[Tensor]:
    """The groups of two rows or more as int64 `[g, s]`, one tensor for each size s."""
    sizes: dict[int, list[Tensor]] = {}
    for rows in groups:
        if len(rows) > 1:
            sizes.setdefault(len(rows), []).append(rows)
    return [torch.stack(found) for _, found in sorted(sizes.items())]
