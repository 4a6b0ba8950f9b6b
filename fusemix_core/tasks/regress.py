"""`regress`: a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.metrics import samples
from fusemix_core.metrics.numbers import mae, r2, rmse
from fusemix_core.metrics.ranks import spearman
from fusemix_core.prediction import Calibration, Columns, Targets, Task
from fusemix_core.tasks.coding import defined, fact_of, known_rows, mean_of, numbers_of


class Regress(Task):
    """A number per row: a score is the standardised value, the loss half its squared error.

    Args:
        mean: of the training rows' targets; `learn` sets it.
        scale: their standard deviation; `learn` sets it.

    Example:
        task = Regress.learn({"target": dataset.facts["price"]})
    """

    gives = "values"
    primary = "r2"
    names = ("value",)

    def __init__(self, *, mean: float = 0.0, scale: float = 1.0) -> None:
        self.mean, self.scale = float(mean), float(scale)

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Regress:
        values = numbers_of(fact_of(facts, "target"), "target")
        values = values[~np.isnan(values)]
        if (values == values[0]).all():
            raise DataError(
                f"The target is {values[0]:g} in all {len(values):,} training rows that have one: "
                "there is nothing to predict.",
                "Name another column: --target COLUMN",
            )
        learnt = {"mean": float(values.mean()), "scale": float(values.std())}
        return cls(**{**learnt, **options})

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        values = numbers_of(facts["target"], "target")
        known = torch.from_numpy(~np.isnan(values))
        standard = (np.nan_to_num(values, nan=self.mean) - self.mean) / self.scale
        return Targets(torch.from_numpy(standard.astype(np.float32)), known)

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        return (targets.values * targets.known)[:, None], targets.known[:, None]

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        values = (scores[:, 0] - targets.values.to(scores)).square() / 2
        return mean_of(values, targets.known, weight)

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """Nothing is moved: least squares has no temperature."""
        return Calibration()

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores[:, 0] * self.scale + self.mean

    def decode(self, scores: Tensor) -> Columns:
        return {"prediction": self.probabilities(scores.detach().cpu().double()).numpy()}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        found, truth = self._units(scores, targets)
        return defined(
            {
                "r2": r2(truth, found),
                "rmse": rmse(truth, found),
                "mae": mae(truth, found),
                "spearman": spearman(truth, found),
            }
        )

    def _units(self, scores: Tensor, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """(predicted, true) values of the known rows, in the target's units."""
        known, values = known_rows(scores, targets)
        truth = self.probabilities(values.double()[:, None])
        return self.probabilities(known).numpy(), truth.numpy()

    def score(self, scores: Tensor, targets: Targets) -> float:
        found, truth = self._units(scores, targets)
        return r2(truth, found)

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        found, truth = self._units(scores, targets)
        return samples.r2(truth, found, times[:, targets.known.cpu().numpy()])

    def per_row(self, scores: Tensor, targets: Targets) -> Tensor:
        """Negative squared errors, standardised: their mean is 1 less than an r2 of rows that vary
        as the training rows do."""
        errors = -(scores[:, 0].detach().cpu().double() - targets.values.cpu()).square()
        return torch.where(targets.known.cpu(), errors, torch.nan)

    def baseline(self, targets: Targets) -> Tensor:
        return targets.values[targets.known].mean()[None]
