"""Intervals of a prediction's metrics, and of their difference between two models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.evaluation.bootstrap import RESAMPLES, interval
from fusemix_core.prediction import Targets, Task

_CELLS = 1 << 22
"""Rows of samples that are drawn at once."""


@dataclass(frozen=True)
class Difference:
    """By how much one model is better than another on the same rows, in a metric's own units.

    Attributes:
        value: the first model's metric less the second's, turned so that above 0 means better.
        interval: its 95% interval; None if rows can't be resampled.
        first: the metric of the first model.
        second: the metric of the second.
    """

    value: float
    interval: list[float] | None
    first: float
    second: float

    @property
    def better(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.interval is not None and self.interval[1] < 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def difference(
    task: Task,
    first: Tensor,
    second: Tensor,
    targets: Targets,
    groups: np.ndarray | None = None,
    *,
    metric: str = "",
    greater_is_better: bool | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The paired bootstrap of a metric's difference: both models are measured on the same rows.

    Args:
        first: scores `[n, C]` of one model; second: of the other.
        groups: int64 `[n]`; rows of a group are drawn together. Each row is its own if None.
        metric: of `task.metrics`; the primary one if empty.
        greater_is_better: of the metric; as the task says if None.

    Example:
        difference(task, fused, image_only, targets, groups=patients).interval
    """
    found, drawn = resampled(
        task, [first, second], targets, groups, metric=metric, resamples=resamples, seed=seed
    )
    larger = task.greater_is_better if greater_is_better is None else greater_is_better
    sign = 1 if larger else -1
    spread = None if drawn is None else interval(sign * (drawn[:, 0] - drawn[:, 1]))
    return Difference(float(sign * (found[0] - found[1])), spread, *map(float, found))


def metric_interval(
    task: Task,
    scores: Tensor,
    targets: Targets,
    groups: np.ndarray | None = None,
    *,
    metric: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[float] | None:
    """The 95% interval of a metric, as in `difference`; None if rows can't be resampled."""
    _, drawn = resampled(
        task, [scores], targets, groups, metric=metric, resamples=resamples, seed=seed
    )
    return None if drawn is None else interval(drawn[:, 0])


def resampled(
    task: Task,
    models: Sequence[Tensor],
    targets: Targets,
    groups: np.ndarray | None = None,
    *,
    metric: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A metric of several models on the known rows, and on groups of them drawn with replacement.

    Args:
        models: scores `[n, C]` of each.

    Returns:
        (float64 `[S]`, the metric of each model; float64 `[resamples, S]`, the same groups drawn
        for all, or None if there is one group only).
    """
    known = targets.rows.cpu()
    targets = targets.to("cpu")[known]
    models = [scores.detach().cpu()[known] for scores in models]
    names = np.arange(len(known)) if groups is None else np.asarray(groups)
    _, cluster = np.unique(names[known.numpy()], return_inverse=True)
    whole = np.array([_measure(task, scores, targets, metric) for scores in models])
    count = int(cluster.max(initial=-1)) + 1
    if count < 2 or resamples < 1:
        return whole, None
    parts = []
    for times in _draws(count, resamples, seed, most=max(1, _CELLS // len(cluster))):
        own = times[:, cluster]
        parts.append(np.stack([_sampled(task, s, targets, metric, own) for s in models], axis=1))
    return whole, np.concatenate(parts)


def _draws(count: int, resamples: int, seed: int, most: int) -> Iterator[np.ndarray]:
    """int64 `[R, count]`, `most` rows at once: how often each group comes up in each sample."""
    draw, even = np.random.default_rng(seed), np.full(count, 1 / count)
    for start in range(0, resamples, most):
        yield draw.multinomial(count, even, size=min(most, resamples - start))


def _sampled(
    task: Task, scores: Tensor, targets: Targets, metric: str, times: np.ndarray
) -> np.ndarray:
    """float64 `[R]`: the metric of each sample."""
    if metric in ("", task.primary):
        return task.resampled(scores, targets, times)
    rows = (torch.from_numpy(np.repeat(np.arange(len(scores)), one)) for one in times)
    return np.array([_measure(task, scores[index], targets[index], metric) for index in rows])


def _measure(task: Task, scores: Tensor, targets: Targets, metric: str) -> float:
    if metric in ("", task.primary):
        return task.score(scores, targets)
    value = task.metrics(scores, targets)[metric]
    return float("nan") if value is None else value
