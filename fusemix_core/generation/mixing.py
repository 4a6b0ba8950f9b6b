"""Mixtures of conditions, and the way from one to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError

_STEPS = 50
_TINY = 1e-9


def mixed(conditions: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The weighted mean of conditions on the sphere; their lengths are averaged apart.

    Of two conditions that is spherical interpolation. A plain sum would be shorter than either, and
    would favour the longer one.

    Args:
        conditions: One or more, each `[n, d]`.
        weights: One per condition, none negative. Only their ratios count. None: all alike.

    Returns:
        float32 `[n, d]`.

    Raises:
        ConfigError: The number of weights is another, one is negative, all are zero, or the
            conditions are opposite, so that nothing is between them.

    Example:
        mixed([bark, car], [0.7, 0.3])
    """
    shares = _shares(weights, len(conditions))
    rows = torch.stack([c.double() for c in conditions])  # [k, n, d]
    lengths, unit = rows.norm(dim=2, keepdim=True), normalize(rows, dim=2)
    shares = shares.to(rows.device)[:, None, None]
    start = (shares * unit).sum(0)
    if (start.norm(dim=1) < 1e-6).any():
        raise ConfigError(
            "These conditions are opposite to each other, so nothing lies between them.",
            "Give other weights: --weights 0.6,0.4",
        )
    mean = normalize(start, dim=1)
    for _ in range(_STEPS):
        cosine = (unit * mean).sum(2, keepdim=True).clamp(-1, 1)
        angle = cosine.acos()
        away = unit - cosine * mean  # tangent to the sphere at the mean, of length sin(angle)
        step = (shares * away * angle / away.norm(dim=2, keepdim=True).clamp(min=_TINY)).sum(0)
        size = step.norm(dim=1, keepdim=True)
        mean = normalize(mean * size.cos() + step * (size.sin() / size.clamp(min=_TINY)), dim=1)
        if float(size.max()) < 1e-12:
            break
    return (mean * (shares * lengths).sum(0)).float()


def between(first: Tensor, last: Tensor, count: int) -> Tensor:
    """`count` conditions from one to another at equal angles, `[count, d]`, both ends among them.

    Args:
        first, last: `[1, d]`.
        count: 2 or more.
    """
    places = torch.linspace(0, 1, count).tolist()
    return torch.cat([mixed([first, last], [1 - at, at]) for at in places])


def _shares(weights: Sequence[float] | None, count: int) -> Tensor:
    """The weights, float64, which sum to 1."""
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    if len(weights) != count:
        raise ConfigError(
            f"There are {len(weights)} weights for {count} conditions.",
            f"Give {count}, in the order of the conditions.",
        )
    if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise ConfigError(
            f"The weights {', '.join(map(str, weights))} can't be used.",
            "None may be negative, and one must be above 0.",
        )
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)
