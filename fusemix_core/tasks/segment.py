"""`segment`: a class for each pixel of a mask, such as the parts of a radiograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.prediction import Calibration, Columns, Targets, Task, calibrated
from fusemix_core.tasks.coding import as_texts, defined, fact_of, mean_of

MOST = 64
"""Classes."""
LARGEST = 1024
"""Pixels of a mask's side, at most."""
_SMOOTH = 1.0
"""Pixels that the Dice loss adds to both parts, so that a class that a mask lacks has one."""
_STEPS = 40
"""Of the search for the best constant scores."""


class Segment(Task):
    """A class for each pixel of a square mask: scores are logits of each class at each pixel,
    class by class and line by line.

    The loss of a row is the mean cross-entropy of its known pixels, plus `dice` times the mean Dice
    loss of its classes but the first (Milletari et al., 2016). The first class is the background.
    Pixels that are NaN in the target, or have a value that training hadn't, are not known.

    Args:
        size: pixels of a side, which `learn` takes from the facts.
        values: of pixels, one for each class; `learn` takes those of the training rows, ascending.
        classes: their names, in the order of `values`: a list, or a text with commas between them;
            by default the values themselves.
        ignored: a value of pixels that aren't known, such as 255 in many data sets.
        dice: the weight of the Dice loss.

    Raises:
        ConfigError: there are other than one name per value, or `dice` is negative.

    Example:
        task = Segment.learn({"target": Fact("grid", masks)}, classes=["none", "opacity"])
        task.probabilities(scores)  # [n, 2, size, size]
    """

    primary = "miou"
    fuser = "dense"
    beside = ()
    views = ("grid",)
    kind = "mask"

    def __init__(
        self,
        *,
        size: int = 0,
        values: Sequence[float] = (),
        classes: Any = None,
        ignored: float | None = None,
        dice: float = 1.0,
    ) -> None:
        self.size, self.values, self.ignored, self.dice = size, tuple(values), ignored, dice
        self.classes = tuple(as_texts(classes)) or tuple(f"{value:g}" for value in values)
        if not dice >= 0:
            raise ConfigError(f"segment has dice={dice}.", "It is 0 or more.")
        if not 0 <= size <= LARGEST or len(self.values) > MOST:
            raise ConfigError(
                f"segment has size={size} and {len(self.values):,} values.",
                f"They are {LARGEST:,} and {MOST} at most.",
            )
        if len(self.classes) != len(self.values):
            raise ConfigError(
                f"segment has {len(self.classes)} names of classes, and the masks have the values "
                f"{', '.join(f'{value:g}' for value in self.values)}.",
                "Name each value, in this order: --task 'segment classes=none,opacity'",
            )
        self.names = tuple(
            f"{name} {i},{j}" for name in self.classes for i in range(size) for j in range(size)
        )

    @property
    def map_shape(self) -> tuple[int, int, int]:
        return len(self.classes), self.size, self.size

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Segment:
        fact = _masks(fact_of(facts, "target"))
        pixels = np.unique(fact.values[~np.isnan(fact.values)])
        ignored = _number(options.get("ignored"), "ignored")
        given = [_number(v, "values") for v in as_texts(options.get("values"))]
        values = [float(v) for v in given or pixels if v is not None and v != ignored]
        if len(set(values)) < len(values):
            raise ConfigError("segment names a value twice.", "Example: values=0,1,2")
        if len(values) < 2:
            raise DataError(
                f"All known pixels of the training masks are {values[0] if values else ignored:g}: "
                "there is nothing to predict.",
                "Add rows with other masks, or name another column: --target COLUMN:mask",
            )
        if len(values) > MOST:
            raise DataError(
                f"The training masks have {len(values)} different values; {MOST} classes are the "
                "most.",
                "Save masks as PNG, not as JPEG, with one value per class.",
            )
        learnt: dict[str, Any] = {"values": values, "size": fact.values.shape[1]}
        learnt["ignored"] = ignored
        return cls(**{**options, **learnt})

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """One-hot float32 `[n, C]`, and which pixels are known, for each class alike."""
        fact = _masks(facts["target"])
        if fact.values.shape[1:] != (self.size, self.size):
            if not fact.missing.all():
                raise DataError(
                    f"The target has masks of {fact.values.shape[1:]} pixels; the task has learnt "
                    f"{(self.size, self.size)}.",
                    "Give masks of one size.",
                )
            fact = Fact("grid", np.full((len(fact), self.size, self.size), np.nan, np.float32))
        pixels = torch.from_numpy(np.ascontiguousarray(fact.values)).flatten(1)
        hot = torch.stack([pixels == value for value in self.values], dim=1)
        known = hot.any(dim=1, keepdim=True).expand_as(hot)
        return Targets(hot.float().flatten(1), known.flatten(1))

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        values, known = self._of(self.targets(facts))
        rows = (values > 0).any(dim=2).sum(dim=0).tolist()
        every = int(known.any(dim=1).sum())
        shown = ", ".join(f"'{n}' in {k:,}" for n, k in zip(self.classes, rows, strict=True))
        return [f"Of {every:,} training masks, so many have each class: {shown}."]

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        return targets.values * targets.known, targets.known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        truth, known = self._of(targets)
        logits, truth = self._each(scores), truth.to(scores)
        logarithms = logits.log_softmax(dim=1)
        seen = known[:, None].to(scores)
        pixels = known.sum(dim=1).clamp(min=1)
        each = -(truth * seen * logarithms).sum(dim=(1, 2)) / pixels
        if self.dice:
            chances, wanted = (x[:, 1:] * seen for x in (logarithms.exp(), truth))
            both, sums = (x.sum(dim=2) for x in (chances * wanted, chances + wanted))
            each = each + self.dice * (1 - (2 * both + _SMOOTH) / (sums + _SMOOTH)).mean(dim=1)
        return mean_of(each, known.any(dim=1), weight)

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """Only one scale, the same for all pixels."""
        return calibrated(self.loss, scores, targets, offsets=False)

    def probabilities(self, scores: Tensor) -> Tensor:
        """`[n, classes, size, size]`: how likely each pixel is of each class."""
        return self._each(scores).softmax(dim=1).unflatten(2, (self.size, self.size))

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` has the classes but the first that some pixel has, separated by `;`;
        `share_…` is the share of pixels of each class."""
        found = self._found(scores)
        shares = torch.stack([(found == k).double().mean(dim=1) for k in range(len(self.classes))])
        texts = [
            ";".join(name for name, s in zip(self.classes[1:], row, strict=True) if s > 0)
            for row in shares[1:].T.tolist()
        ]
        columns = zip(self.classes, shares.numpy(), strict=True)
        return {"prediction": texts, **{f"share_{name}": values for name, values in columns}}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """`miou`: the mean over classes of intersection over union; `dice`: the mean Dice of
        classes but the first; `iou_…` of each class; and the share of pixels that are right. All
        rows are measured together, as one large mask."""
        if not targets.known.any():
            raise DataError(
                f"No pixel is known in any of {len(targets):,} rows: nothing can be measured.",
                "Fill in the target's column, or predict without measuring.",
            )
        both, found, there = (part.sum(axis=0) for part in self._counts(scores, targets))
        of_classes = _ratio(both, found + there - both)
        dice = _ratio(2 * both, found + there)[1:]
        each = {f"iou_{n}": float(v) for n, v in zip(self.classes, of_classes, strict=True)}
        return defined({
            "miou": float(_mean(of_classes)),
            "dice": float(_mean(dice)),
            "accuracy": float(both.sum() / there.sum()),
            **each,
        })  # fmt: skip

    def score(self, scores: Tensor, targets: Targets) -> float:
        both, found, there = (part.sum(axis=0) for part in self._counts(scores, targets))
        return float(_mean(_ratio(both, found + there - both)))

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        both, found, there = (times @ part for part in self._counts(scores, targets))
        return _mean(_ratio(both, found + there - both))

    def baseline(self, targets: Targets) -> Tensor:
        """The constant scores of the least loss, found from the classes' shares at each pixel."""
        truth, known = self._of(targets)
        counts = (truth * known[:, None]).double().sum(dim=0) + 1 / len(self.classes)
        scores = (counts / counts.sum(dim=0)).log().flatten()[None].requires_grad_()
        rows = Targets(targets.values.double(), targets.known)
        search = torch.optim.LBFGS(
            [scores], max_iter=_STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def value() -> Tensor:
            search.zero_grad()
            loss = self.loss(scores, rows)
            loss.backward()
            return loss

        if self.dice:
            with torch.enable_grad():
                search.step(value)
        return scores.detach()[0].float()

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        logarithms = torch.stack([self._each(one).log_softmax(dim=1) for one in scores])
        return (logarithms.logsumexp(dim=0) - np.log(len(scores))).flatten(1)

    def _each(self, scores: Tensor) -> Tensor:
        """`[n, classes, pixels]`."""
        return scores.unflatten(1, (len(self.classes), -1))

    def _of(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """One-hot `[n, classes, pixels]`, and which pixels are known, bool `[n, pixels]`."""
        return self._each(targets.values), self._each(targets.known)[:, 0]

    def _found(self, scores: Tensor) -> Tensor:
        """int64 `[n, pixels]`: the likeliest class."""
        return self._each(scores.detach().cpu()).argmax(dim=1)

    def _counts(self, scores: Tensor, targets: Targets) -> tuple[np.ndarray, ...]:
        """float64 `[n, classes]` each: pixels of a class that are found, found at all, there."""
        truth, known = self._of(targets.to("cpu"))
        found, wanted = self._found(scores), truth.argmax(dim=1)
        parts = []
        for k in range(len(self.classes)):
            one, other = (found == k) & known, (wanted == k) & known
            parts.append(torch.stack([(one & other).sum(1), one.sum(1), other.sum(1)]))
        return tuple(torch.stack(parts, dim=2).double().numpy())


def _masks(fact: Fact) -> Fact:
    """The fact, if it has masks. Raises `DataError` if it hasn't."""
    if fact.kind != "grid" or fact.values.shape[1] != fact.values.shape[2]:
        raise DataError(
            f"The target has the kind '{fact.kind}'; this task needs square masks.",
            "Name a column with the files of masks: --target COLUMN:mask",
        )
    return fact


def _ratio(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    """part / of, NaN where `of` is 0."""
    return np.where(of > 0, part / np.maximum(of, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of the values that aren't NaN; NaN if all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    sums = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _number(value: Any, name: str) -> float | None:
    """An option that is a number, None if it isn't given."""
    try:
        return None if value is None else float(value)
    except ValueError:
        raise ConfigError(
            f"segment has {name}={value}, which is not a number.", f"Example: {name}=255"
        ) from None
