"""Rows that were predicted by fits that had not seen them, in one part or in folds, and measures of
several models on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.evaluation.differences import Difference, resampled
from fusemix_core.metrics.reliability import pooled
from fusemix_core.prediction import Targets, Task

RESAMPLES = 400
ERROR = "ece"
"""The metric that a task's `reliability` has, too."""


@dataclass(frozen=True)
class Part:
    """The test rows of one fit.

    Attributes:
        task: of that fit.
        targets: of n rows.
        groups: int64 `[n]`; rows of a group are drawn together.
        scores: model → `[n, C]`.
        rows: int64 `[n]`, which rows of the data set they are.
    """

    task: Task
    targets: Targets
    groups: np.ndarray
    scores: Mapping[str, Tensor]
    rows: np.ndarray


@dataclass(frozen=True)
class Measures:
    """The primary metric of several models, over all parts.

    Attributes:
        names: of the models.
        values: float64 `[S]`.
        drawn: float64 `[resamples, S]`, of groups that were drawn with replacement, the same for
            all models; None if there is one group only.
        sign: 1 if a larger value is better, -1 if a smaller one is.
    """

    names: tuple[str, ...]
    values: np.ndarray
    drawn: np.ndarray | None
    sign: int

    def value(self, name: str) -> float:
        """The metric of a model."""
        return float(self.values[self.names.index(name)])

    def interval(self, name: str) -> list[float] | None:
        """Its 95% interval."""
        return None if self.drawn is None else interval(self.drawn[:, self.names.index(name)])

    def difference(self, first: str, second: str) -> Difference:
        """By how much the first model is better than the second."""
        one, other = self.names.index(first), self.names.index(second)
        values = self.sign * (self.values[one] - self.values[other])
        drawn = None
        if self.drawn is not None:
            drawn = interval(self.sign * (self.drawn[:, one] - self.drawn[:, other]))
        return Difference(float(values), drawn, self.value(first), self.value(second))

    def error(self, first: str, second: str) -> float:
        """The standard error of that difference; 0 if rows can't be drawn."""
        if self.drawn is None:
            return 0.0
        one, other = self.names.index(first), self.names.index(second)
        return float(np.nanstd(self.drawn[:, one] - self.drawn[:, other]))

    def best(self, names: Iterable[str]) -> str:
        """The model with the best value, the first of equals."""
        known = [name for name in names if name in self.names]
        return max(known, key=lambda name: self.sign * self.value(name))

    def simplest(self, names: Sequence[str]) -> str:
        """The first model, in this order, that is within one standard error of the best."""
        best = self.best(names)
        for name in names:
            behind = self.sign * (self.value(best) - self.value(name))
            if name == best or behind <= self.error(best, name):
                return name
        return best


def measures(
    parts: Sequence[Part], names: Sequence[str] = (), resamples: int = RESAMPLES, seed: int = 0
) -> Measures:
    """The primary metric of these models, the mean over the parts, by the paired bootstrap.

    Args:
        parts: one or more.
        names: of the models, by default all.
        resamples: how often groups are drawn.
        seed: of the draws.
    """
    chosen = tuple(names) or tuple(parts[0].scores)
    values, drawn = [], []
    for number, part in enumerate(parts):
        whole, some = resampled(
            part.task,
            [part.scores[name] for name in chosen],
            part.targets,
            part.groups,
            resamples=resamples,
            seed=seed + number,
        )
        values.append(whole)
        drawn.append(some)
    sign = 1 if parts[0].task.greater_is_better else -1
    mixed = None if any(one is None for one in drawn) else np.mean(drawn, axis=0)
    return Measures(chosen, np.mean(values, axis=0), mixed, sign)


def metrics(parts: Sequence[Part], name: str) -> dict[str, float | None]:
    """All metrics of a model, the mean over the parts; None if one is undefined in any.

    The expected calibration error is that of the rows of all parts together: the mean over small
    parts is too large.
    """
    each = [part.task.metrics(part.scores[name], part.targets) for part in parts]
    found = {key: _mean([one.get(key) for one in each]) for key in each[0]}
    plots = [part.task.reliability(part.scores[name], part.targets) for part in parts]
    known = [plot for plot in plots if plot is not None and plot.count.sum()]
    if known and found.get(ERROR) is not None:
        found[ERROR] = pooled(known).ece
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
