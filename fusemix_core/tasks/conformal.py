"""Split conformal prediction: sets of classes, or intervals, that are right as often as asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.prediction import Targets, Task
from fusemix_core.tasks.coding import known_rows

COVERAGE = 0.9
METHODS = {"classes": ("lac", "aps"), "values": ("residual",)}
"""The methods for each form that a task `gives`, the default first."""


def finite_quantile(values: np.ndarray, coverage: float) -> float:
    """The smallest of n values that one more value is at most with a chance of `coverage`.

    It is the ⌈(n + 1) · coverage⌉-th smallest, and infinite if n is too small for that.
    """
    place = math.ceil(round((len(values) + 1) * coverage, 9))
    return float(np.sort(values)[max(place, 1) - 1]) if place <= len(values) else math.inf


@dataclass(frozen=True)
class Conformal:
    """Turns scores into sets or intervals that contain the truth with a chance of `coverage`.

    That holds on average over rows that come as the calibration rows did, whatever the model
    (Vovk et al. 2005). `lac` gives the smallest sets (Sadinle et al. 2019), which are empty if no
    class is likely enough. `aps` gives sets that grow when the model is unsure (Romano et al.
    2020). `residual` gives intervals of one width.

    Attributes:
        method: `lac`, `aps` or `residual`.
        coverage: from 0 to 1.
        threshold: what a class's, or a value's, strangeness may be; infinite with too few rows.
        rows: how many rows it was calibrated on.

    Example:
        conformal = Conformal.fit(task, validation_scores, validation_targets)
        sets = conformal.sets(task, scores)
    """

    method: str
    coverage: float
    threshold: float
    rows: int

    @classmethod
    def fit(
        cls,
        task: Task,
        scores: Tensor,
        targets: Targets,
        coverage: float = COVERAGE,
        method: str = "",
    ) -> Conformal | None:
        """Calibrate on rows that neither the fit nor the temperature have seen.

        Args:
            scores: `[n, C]`, as they will be given to `sets` or `intervals`.
            method: a name in `METHODS`; the first that suits the task if empty.

        Returns:
            None if the task gives neither classes nor values.

        Raises:
            ConfigError: the task has no such method, or the coverage isn't between 0 and 1.
            DataError: no target is known.
        """
        methods = METHODS.get(task.gives, ())
        if not methods:
            return None
        if method and method not in methods:
            raise ConfigError(
                f"There is no conformal method '{method}' for this task.",
                f"Methods: {', '.join(methods)}.",
            )
        if not 0 < coverage < 1:
            raise ConfigError(f"The coverage is {coverage}; it is between 0 and 1.", "0.9 is usual")
        method = method or methods[0]
        known, values = known_rows(scores, targets)
        if method == "residual":
            strange = (
                task.probabilities(known) - task.probabilities(values.double()[:, None])
            ).abs()
        else:
            strange = _strangeness(task.probabilities(known), method)
            strange = strange[torch.arange(len(values)), values]
        threshold = finite_quantile(strange.numpy(), coverage)
        return cls(method, coverage, threshold, len(strange))

    def sets(self, task: Task, scores: Tensor) -> Tensor:
        """bool `[n, K]`: the classes in the set of each row."""
        probabilities = task.probabilities(scores.detach().cpu().double())
        return _strangeness(probabilities, self.method) <= self.threshold

    def intervals(self, task: Task, scores: Tensor) -> Tensor:
        """float64 `[n, 2]`: the low and high end of each row's interval, in the target's units."""
        values = task.probabilities(scores.detach().cpu().double())
        return torch.stack([values - self.threshold, values + self.threshold], dim=1)

    def measured(self, task: Task, scores: Tensor, targets: Targets) -> dict[str, float]:
        """The coverage of the known rows, and the mean size of their sets, or the width."""
        known, values = known_rows(scores, targets)
        if self.method == "residual":
            low, high = self.intervals(task, known).T
            truth = task.probabilities(values.double()[:, None])
            inside = ((low <= truth) & (truth <= high)).double()
            return {"coverage": float(inside.mean()), "width": 2 * self.threshold}
        sets = self.sets(task, known)
        inside = sets[torch.arange(len(values)), values].double()
        return {"coverage": float(inside.mean()), "size": float(sets.sum(dim=1).double().mean())}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, a threshold that is infinite as None."""
        finite = self.threshold if math.isfinite(self.threshold) else None
        return {**asdict(self), "threshold": finite}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Conformal:
        """The same again, from the plain values of `as_dict`."""
        threshold = values["threshold"]
        given: dict[str, Any] = {
            **values,
            "threshold": math.inf if threshold is None else threshold,
        }
        return cls(**given)


def _strangeness(probabilities: Tensor, method: str) -> Tensor:
    """`[n, K]`: how strange each class would be as the true one."""
    if method == "lac":
        return 1 - probabilities
    ordered = probabilities.sort(dim=1, descending=True, stable=True)
    return torch.zeros_like(probabilities).scatter(1, ordered.indices, ordered.values.cumsum(dim=1))
