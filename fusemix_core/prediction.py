"""Predictions: the targets of rows, the `Task` that owns them, and their calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.data.media import Shown
from fusemix_core.metrics.reliability import Reliability
from fusemix_core.sections import Section

Gives = Literal["classes", "labels", "values", "survival", ""]
Columns = dict[str, "np.ndarray | list[Any]"]
Show = Callable[[int], Mapping[str, Shown]]


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of n rows, coded by a task.

    Attributes:
        values: the task's own coding, first axis the row: class indices int64 `[n]`, numbers
            float32 `[n]` or `[n, …]`. Where a target isn't known, any value.
        known: bool `[n]`, or `[n, C]` if the outputs of a row may be known one by one.

    Example:
        task.loss(scores[rows], targets[rows])
    """

    values: Tensor
    known: Tensor

    def __getitem__(self, rows: Any) -> Targets:
        return Targets(self.values[rows], self.known[rows])

    def __len__(self) -> int:
        return len(self.values)

    @property
    def rows(self) -> Tensor:
        """bool `[n]`: the rows that have anything known."""
        return self.known.any(dim=1) if self.known.ndim > 1 else self.known

    def to(self, device: torch.device | str) -> Targets:
        """The targets on a device."""
        return replace(self, values=self.values.to(device), known=self.known.to(device))


@dataclass(frozen=True)
class Calibration:
    """Scores made honest: `scale · scores + offsets`, with one scale and an offset per output.

    A scale of 1/T is the temperature T of Guo et al. (2017), https://arxiv.org/abs/1706.04599.
    All of it is plain values, so it is saved as they are.

    Example:
        calibration = task.calibrate(validation_scores, validation_targets)
        task.probabilities(calibration(scores))
    """

    scale: float = 1.0
    offsets: tuple[float, ...] = ()

    def __call__(self, scores: Tensor) -> Tensor:
        """Calibrated scores `[n, C]` of scores `[n, C]`."""
        if not self.offsets:
            return self.scale * scores
        return self.scale * scores + scores.new_tensor(self.offsets)

    @property
    def temperature(self) -> float:
        """The number by which scores are divided."""
        return 1 / self.scale

    def as_dict(self) -> dict[str, Any]:
        """Plain values: `Calibration.of(calibration.as_dict())` is the same again."""
        return {"scale": self.scale, "offsets": list(self.offsets)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that `as_dict` gave as plain values."""
        return cls(float(values["scale"]), tuple(float(v) for v in values["offsets"]))


class Task(ABC):
    """A kind of target: how targets are coded, their loss, metrics and decoding.

    A task is constructed from plain options only, `Task(**options)`, and is saved as its name and
    `options`. It learns some of them from the facts of training rows (the classes, a mean), by
    `learn`. It has no weights; a fuser gives the scores.

    Scores are float `[n, outputs]`: logits for classes, a standardised value for numbers, a log
    risk for survival. Targets of rows that aren't known have no part in anything.

    Example:
        task = Classify.learn({"target": fact})
        targets = task.targets({"target": fact})
        loss = task.loss(fuser(latents, present), targets)
    """

    facts: ClassVar[tuple[str, ...]] = ("target",)
    """The facts that it reads. Empty if it reads any number of facts, each under its own name."""
    gives: ClassVar[Gives] = ""
    """How to read `probabilities`: `classes` `[n, K]`, each row a distribution; `labels` `[n, C]`,
    each a probability; `values` `[n]` in the target's units; `survival` `[n, B]`; or else ""."""
    primary: ClassVar[str]
    """The metric by which fusers are chosen."""
    greater_is_better: ClassVar[bool] = True
    """Whether a larger value of `primary` is better."""
    fuser: ClassVar[str] = ""
    """The fuser that `auto` takes. Empty if it chooses among `beside` and `stack`."""
    beside: ClassVar[tuple[str, ...]] = ("concat", "block", "mlp")
    """The fusers that are fitted beside `stack` and the chosen one, to compare with."""
    views: ClassVar[tuple[str, ...]] = ()
    """The views that suit, the best first. An encoder that has none of them gives its first."""
    kind: ClassVar[str] = ""
    """The kind that the column of the target is read as, unless the user names one."""
    usual: ClassVar[Mapping[str, str]] = {}
    """Fact → the column, with its kind, that is read if the user names no target."""
    placed: ClassVar[bool] = False
    """Whether the place of a token among those of its item matters. Fusers that take tokens then
    learn an embedding of each place."""

    tagged: str = ""
    """The modality whose tokens the outputs are of; empty if they are of the row."""
    length: int = 0
    """Tokens of an item that are scored, the first ones, if the outputs are of tokens."""

    options: dict[str, Any]
    names: tuple[str, ...]
    """Of the outputs, for reports."""

    def __new__(cls, **options: Any) -> Self:
        task = super().__new__(cls)
        task.options = options
        return task

    @classmethod
    @abstractmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Self:
        """The task of these training rows: `options` and what the facts add to them.

        Raises:
            DataError: nothing can be learnt from these facts, and why: a single class, all missing,
                infinite values.
        """

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of `probabilities`: by default those of the outputs."""
        return self.names

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Classes, height and width, if the outputs are a map for each class; else nothing."""
        return ()

    @property
    def outputs(self) -> int:
        """C: how many scores a row has."""
        return len(self.names)

    @abstractmethod
    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """The targets of any rows. Classes that weren't in training are not known."""

    def unseen(self, facts: Mapping[str, Fact]) -> dict[str, int]:
        """How many of these rows have each class that wasn't in training."""
        return {}

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        """Sentences about the training rows that the user should read before anything is encoded,
        such as which classes have one row only."""
        return []

    @abstractmethod
    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """The numbers that least squares fits: float32 `[n, C]`, and which of them are known, bool
        `[n, C]`. The others are 0."""

    @abstractmethod
    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        """The mean loss of the known rows, a differentiable scalar; 0 if none is known.

        Args:
            scores: float `[n, C]`.
            weight: float `[n]`, of the rows in the mean; all alike if None.
        """

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """The scale and offsets that minimise `loss` for these scores, which the fit hasn't seen:
        those of validation rows, or out-of-fold ones."""
        return calibrated(self.loss, scores, targets)

    def settle(self, scores: Tensor, targets: Targets) -> Self:
        """The task that has learnt from calibrated scores too, such as a baseline hazard.

        By default it is the task itself. The scores are of rows as for `calibrate`.
        """
        return self

    @abstractmethod
    def probabilities(self, scores: Tensor) -> Tensor:
        """The scores of each row in the form that `gives` names."""

    @abstractmethod
    def decode(self, scores: Tensor) -> Columns:
        """The columns of a table of predictions, n values each: `prediction` and more."""

    def described(self, columns: Columns, items: Mapping[str, Sequence[Any]]) -> Columns:
        """The columns of `decode`, and those that need the items of the rows, such as words.

        Args:
            columns: those of n rows.
            items: modality → its item in each row, None if it is missing; an image is its path.
        """
        return columns

    def sections(self, scores: Tensor, targets: Targets, show: Show) -> Sequence[Section]:
        """Sections of the report about test rows, such as images with the boxes found in them.

        Args:
            scores: `[n, C]` of the chosen fuser.
            targets: of the rows.
            show: row → its items by modality, as people see them.
        """
        return ()

    @abstractmethod
    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """The measures of the known rows, `primary` among them; None if one is undefined.

        Raises:
            DataError: no target is known.
        """

    def score(self, scores: Tensor, targets: Targets) -> float:
        """Only the primary metric, NaN if it is undefined. Override it if the others cost more."""
        value = self.metrics(scores, targets)[self.primary]
        return float("nan") if value is None else value

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        """The primary metric of each of R samples of the rows, float64 `[R]`; NaN if undefined.

        Override it if many samples can be measured at once.

        Args:
            times: int64 `[R, n]`, how often each row is in each sample.
        """
        rows = (torch.from_numpy(np.repeat(np.arange(len(scores)), one)) for one in times)
        return np.array([self.score(scores[index], targets[index]) for index in rows])

    def per_row(self, scores: Tensor, targets: Targets) -> Tensor | None:
        """float64 `[n]` whose mean over rows is, or stands for, the primary metric, NaN for rows
        that aren't known. Larger is better. None if the metric isn't a mean over rows."""
        return None

    def reliability(self, scores: Tensor, targets: Targets) -> Reliability | None:
        """The points of a reliability plot of the known rows; None if the task gives neither
        classes nor labels."""
        return None

    @abstractmethod
    def baseline(self, targets: Targets) -> Tensor:
        """The constant scores, float32 `[C]`, that fit these targets best."""

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        """The scores of the mean of several models' probabilities; by default the mean score."""
        return torch.stack(list(scores)).mean(dim=0)


def calibrated(
    loss: Callable[[Tensor, Targets], Tensor],
    scores: Tensor,
    targets: Targets,
    *,
    offsets: bool = True,
    shared: Tensor | None = None,
) -> Calibration:
    """The scale and offsets that minimise a task's loss, by L-BFGS in float64.

    Normal priors keep them finite if the classes are separable, and small if there are few rows:
    of the logarithm of the scale (of scores with a deviation of 1) with a deviation of 1, of the
    offsets with one of 1/2.

    Args:
        loss: `Task.loss`.
        scores: `[n, C]`.
        offsets: whether each output has one; else only the scale is fitted.
        shared: int64 `[C]`: outputs of one number, counted from 0, have the same offset. By default
            each has its own.

    Example:
        calibrated(task.loss, scores, targets, offsets=False)
    """
    targets = targets.to("cpu")
    given, known = scores.detach().cpu().double()[targets.rows], targets[targets.rows]
    count = len(given)
    if count == 0:
        return Calibration()
    spread = given.std(dim=0, correction=0).mean().clamp(min=1e-12)
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    places = torch.arange(scores.shape[1]) if shared is None else shared
    shifts = torch.zeros(int(places.max()) + 1 if offsets else 0, dtype=torch.float64)
    shifts.requires_grad_(offsets)
    parameters = [logarithm, shifts] if offsets else [logarithm]
    search = torch.optim.LBFGS(
        parameters, max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def value() -> Tensor:
        search.zero_grad()
        moved = given / spread * logarithm.exp() + (shifts[places] if offsets else 0)
        prior = logarithm.square() + 4 * shifts.square().sum()
        total = loss(moved, known) + prior / (2 * count)
        total.backward()
        return total

    with torch.enable_grad():
        search.step(value)
    scale = float(logarithm.detach().exp() / spread)
    return Calibration(scale, tuple(shifts.detach()[places].tolist()) if offsets else ())
