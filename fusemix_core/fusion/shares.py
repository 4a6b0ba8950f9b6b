"""The share of each modality: Shapley values of a metric, exact for few modalities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fusemix_core.evaluation.bootstrap import interval

EXACT = 6
"""With more modalities than these, orders are drawn."""
ORDERS = 64

Subset = tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """The Shapley value of a modality, in units of the metric.

    Attributes:
        value: the mean, of its gain over all orders in which modalities may be added.
        interval: its 95% interval over resampled rows; None if there is none.
        first: its gain over no modality.
        last: its gain over all others.
    """

    value: float
    interval: list[float] | None
    first: float
    last: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {}


def needed(modalities: Sequence[str], seed: int = 0) -> list[Subset]:
    """The subsets, the empty one among them, whose metric `shapley` needs."""
    if len(modalities) <= EXACT:
        sizes = range(len(modalities) + 1)
        return [one for size in sizes for one in combinations(modalities, size)]
    found: dict[Subset, None] = {}
    for order in _orders(modalities, seed):
        for size in range(len(order) + 1):
            found[_sorted(order[:size], modalities)] = None
    for m in modalities:
        found[(m,)] = None
        found[tuple(o for o in modalities if o != m)] = None
    return list(found)


def shapley(
    modalities: Sequence[str],
    value: Callable[[Subset], np.ndarray],
    seed: int = 0,
) -> dict[str, Share]:
    """The Shapley value (Shapley 1953) of each modality.

    Args:
        modalities: K names. Up to 6 are exact; of more, 64 orders and their reverses are drawn.
        value: subset → float64 `[1 + resamples]`, larger is better: the metric of the rows, then of
            rows that were drawn, alike for all subsets.
        seed: of the orders.

    Returns:
        modality → share. The shares add up to the value of all less that of none.
    """
    known = {one: value(one) for one in needed(modalities, seed)}
    whole = _sorted(modalities, modalities)
    found = {}
    for m in modalities:
        share = _exact(m, modalities, known) if len(modalities) <= EXACT else None
        if share is None:
            orders = list(_orders(modalities, seed))
            share = np.mean([_added(m, order, modalities, known) for order in orders], axis=0)
        rest = tuple(o for o in whole if o != m)
        found[m] = Share(
            float(share[0]),
            interval(share[1:]) if len(share) > 1 else None,
            float(known[(m,)][0] - known[()][0]),
            float(known[whole][0] - known[rest][0]),
        )
    return found


def _exact(m: str, modalities: Sequence[str], known: dict[Subset, np.ndarray]) -> np.ndarray:
    others, total = [o for o in modalities if o != m], 0.0
    count = len(modalities)
    for size in range(count):
        weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
        for one in combinations(others, size):
            total = total + weight * (known[_sorted((*one, m), modalities)] - known[one])
    return np.asarray(total)


def _added(
    m: str, order: Sequence[str], modalities: Sequence[str], known: dict[Subset, np.ndarray]
) -> np.ndarray:
    before = order[: order.index(m)]
    return known[_sorted((*before, m), modalities)] - known[_sorted(before, modalities)]


def _orders(modalities: Sequence[str], seed: int) -> Iterable[tuple[str, ...]]:
    draw = np.random.default_rng(seed)
    for _ in range(ORDERS):
        order = tuple(modalities[i] for i in draw.permutation(len(modalities)))
        yield order
        yield order[::-1]


def _sorted(some: Iterable[str], modalities: Sequence[str]) -> Subset:
    chosen = set(some)
    return tuple(m for m in modalities if m in chosen)
