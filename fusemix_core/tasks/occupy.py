"""`occupy`: which cells of a grid are occupied, such as a map around a car."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.metrics.ranks import average_precision
from fusemix_core.metrics.reliability import Reliability, reliability
from fusemix_core.prediction import Calibration, Columns, Targets, Task, calibrated
from fusemix_core.tasks.coding import defined, fact_of, mean_of

MOST = 1 << 20
"""Cells of a grid, at most."""
_SMOOTH = 1.0
"""Cells that the Dice loss adds to both parts, so that an empty grid has one."""


class Occupy(Task):
    """A yes or no for each cell of a grid, in two stages: scores are the logits of all cells, row
    by row, then those of the coarse cells. A coarse cell is 2 × 2 cells.

    The loss is binary cross-entropy plus the Dice loss of each row, of the fine cells, and
    `coarse` times the same of the coarse cells. A coarse cell is occupied if one of its cells is.
    Metrics are of the fine cells. Cells that are NaN in the target are not known.

    Args:
        height, width: of the grid, which `learn` takes from the facts.
        coarse: the weight of the coarse stage; 0 leaves it out.
        dice: the weight of the Dice loss in each stage.

    Raises:
        ConfigError: a weight is negative.

    Example:
        task = Occupy.learn({"target": Fact("grid", maps)})
        task.probabilities(scores)  # [n, height, width]
    """

    primary = "iou"
    kind = "grid"
    views = ("grid",)
    beside = ("concat", "block")

    def __init__(
        self, *, height: int = 0, width: int = 0, coarse: float = 0.5, dice: float = 1.0
    ) -> None:
        if not min(coarse, dice) >= 0:
            raise ConfigError(f"occupy has coarse={coarse} and dice={dice}.", "They are 0 or more.")
        if min(height, width) < 0 or height * width > MOST:
            raise ConfigError(
                f"occupy has {height:,} × {width:,} cells.", f"{MOST:,} cells are the most."
            )
        self.height, self.width = height, width
        self.coarse, self.dice = coarse, dice
        self.names = tuple(f"{i},{j}" for i in range(height) for j in range(width))
        if coarse:
            places = (f"{i},{j}" for i in range(-(-height // 2)) for j in range(-(-width // 2)))
            self.names += tuple(f"coarse {place}" for place in places)

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Occupy:
        fact = _grids(fact_of(facts, "target"))
        known = np.unique(fact.values[~np.isnan(fact.values)])
        if len(known) < 2:
            raise DataError(
                f"All known cells of the training rows are {known[0]:g}: there is nothing to "
                "predict.",
                "Add rows with other maps, or name another column: --target COLUMN:grid",
            )
        height, width = fact.values.shape[1:]
        return cls(**{**options, "height": height, "width": width})

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """float32 `[n, C]` of 0 and 1 in the order of the scores, and which are known."""
        fact = _grids(facts["target"])
        if fact.values.shape[1:] != (self.height, self.width):
            if not fact.missing.all():
                raise DataError(
                    f"The target is a grid of shape {fact.values.shape[1:]}; the task has learnt "
                    f"{(self.height, self.width)}.",
                    "Give grids of one shape.",
                )
            fact = Fact("grid", np.full((len(fact), self.height, self.width), np.nan, np.float32))
        cells = torch.from_numpy(np.ascontiguousarray(fact.values))
        known = ~cells.isnan()
        fine, seen = (cells.nan_to_num().flatten(1), known.flatten(1))
        if not self.coarse:
            return Targets(fine, seen)
        occupied = _pooled(cells.nan_to_num())
        unknown = _pooled((~known).float()) > 0
        there = ((occupied > 0) | ~unknown).flatten(1)
        return Targets(torch.cat([fine, occupied.flatten(1)], 1), torch.cat([seen, there], 1))

    @property
    def cells(self) -> int:
        """How many fine cells there are."""
        return self.height * self.width

    def _stages(self) -> list[tuple[float, slice]]:
        """Weight and outputs of each stage."""
        stages = [(1.0, slice(0, self.cells))]
        return [*stages, (self.coarse, slice(self.cells, None))] if self.coarse else stages

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        return (2 * targets.values - 1) * targets.known, targets.known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        total = scores.sum() * 0
        for share, own in self._stages():
            logits, known = scores[:, own], targets.known[:, own]
            truth = targets.values[:, own].to(scores)
            entropy = binary_cross_entropy_with_logits(logits, truth, reduction="none")
            rows = known.any(dim=1)
            each = mean_of_rows(entropy, known) + self.dice * _dice(logits.sigmoid(), truth, known)
            total = total + share * mean_of(each, rows, weight)
        return total

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """One scale, and one offset for all cells of a stage."""
        shared = (torch.arange(self.outputs) >= self.cells).long()
        return calibrated(self.loss, scores, targets, shared=shared)

    def probabilities(self, scores: Tensor) -> Tensor:
        """`[n, height, width]`: how likely each cell is occupied."""
        return scores[:, : self.cells].sigmoid().unflatten(1, (self.height, self.width))

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` is the map as text, a line of 0 and 1 for each row of cells with `/` between
        them; `occupied` is the share of occupied cells."""
        maps = (self.probabilities(scores.detach().cpu().double()) > 0.5).numpy()
        texts = [
            "/".join("".join("01"[int(cell)] for cell in line) for line in one) for one in maps
        ]
        return {"prediction": texts, "occupied": maps.mean(axis=(1, 2))}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """`iou` and `dice` of the occupied cells, all rows together, `average_precision`,
        `log_loss` and `ece` of all known cells, and `recall`, `precision`."""
        known = targets.known[:, : self.cells].cpu()
        if not known.any():
            raise DataError(
                f"No cell is known in any of {len(targets):,} rows: nothing can be measured.",
                "Fill in the target's column, or predict without measuring.",
            )
        both, found, there = (part.sum() for part in self._counts(scores, targets))
        logits = scores[:, : self.cells].detach().cpu().double()[known]
        truth = targets.values[:, : self.cells].cpu()[known]
        entropy = binary_cross_entropy_with_logits(logits, truth.double())
        return defined({
            "iou": _ratio(both, found + there - both),
            "dice": _ratio(2 * both, found + there),
            "precision": _ratio(both, found),
            "recall": _ratio(both, there),
            "average_precision": average_precision(logits.numpy(), truth.numpy() > 0),
            "log_loss": float(entropy),
            "ece": reliability(logits.sigmoid().numpy(), truth.numpy() > 0).ece,
        })  # fmt: skip

    def _counts(self, scores: Tensor, targets: Targets) -> tuple[np.ndarray, ...]:
        """float64 `[n]` each: cells that are occupied and found, found, and occupied."""
        own = slice(0, self.cells)
        known = targets.known[:, own].cpu()
        found = (scores[:, own].detach().cpu() > 0) & known
        there = (targets.values[:, own].cpu() > 0) & known
        parts = (found & there, found, there)
        return tuple(part.sum(dim=1).double().numpy() for part in parts)

    def score(self, scores: Tensor, targets: Targets) -> float:
        both, found, there = (part.sum() for part in self._counts(scores, targets))
        return _ratio(both, found + there - both)

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        both, found, there = (times @ part for part in self._counts(scores, targets))
        union = found + there - both
        return np.where(union > 0, both / np.maximum(union, 1), np.nan)

    def reliability(self, scores: Tensor, targets: Targets) -> Reliability:
        """How often cells are occupied, over their probability; of all known cells together."""
        known = targets.known[:, : self.cells].cpu()
        chances = scores[:, : self.cells].detach().cpu().double()[known].sigmoid()
        truth = targets.values[:, : self.cells].cpu()[known] > 0
        return reliability(chances.numpy(), truth.numpy())

    def baseline(self, targets: Targets) -> Tensor:
        """The constant scores of the least loss, which start from each cell's log odds."""
        known = targets.known.sum(dim=0)
        share = ((targets.values * targets.known).sum(dim=0) + 1) / (known + 2)
        start = share.double().logit()
        limit = (known.max().double() + 1).log()  # of a cell that no training row has
        scores = start.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [scores], max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def value() -> Tensor:
            search.zero_grad()
            loss = self.loss(scores.expand(len(targets), -1), targets)
            loss.backward()
            return loss

        with torch.enable_grad():
            search.step(value)
        return scores.detach().clamp(-limit, limit).float()

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.sigmoid() for one in scores]).mean(dim=0).logit(eps=1e-7)


def mean_of_rows(values: Tensor, known: Tensor) -> Tensor:
    """`[n]`: the mean of each row's known values, 0 if none is known."""
    return torch.where(known, values, 0.0).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def _dice(chances: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """`[n]`: the Dice loss of each row's known cells (Milletari et al., 2016)."""
    chances, truth = (torch.where(known, x, 0.0) for x in (chances, truth))
    both = (chances * truth).sum(dim=1)
    return 1 - (2 * both + _SMOOTH) / (chances.sum(dim=1) + truth.sum(dim=1) + _SMOOTH)


def _pooled(cells: Tensor) -> Tensor:
    """The most of each 2 × 2 cells, `[n, ⌈H / 2⌉, ⌈W / 2⌉]`."""
    return max_pool2d(cells[:, None], 2, ceil_mode=True)[:, 0]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _grids(fact: Fact) -> Fact:
    """The fact, if it is of grids of 0, 1 and NaN. Raises `DataError` otherwise."""
    if fact.kind != "grid":
        raise DataError(
            "The target isn't a grid.",
            "Say that its cells name .npy files of grids: --target COLUMN:grid",
        )
    wrong = fact.values[~(np.isnan(fact.values) | (fact.values == 0) | (fact.values == 1))]
    if len(wrong):
        raise DataError(
            f"The target's cells have the value {wrong.min():g}; a cell is 0 (free) or 1 "
            "(occupied), or NaN if it isn't known.",
            "Write maps of 0 and 1, such as (height > 0.3).astype('uint8').",
        )
    return fact
