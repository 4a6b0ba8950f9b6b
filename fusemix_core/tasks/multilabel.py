"""`multilabel`: several labels; any of them may apply to a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.metrics import samples
from fusemix_core.metrics.ranks import average_precision, roc_auc
from fusemix_core.metrics.reliability import Reliability, reliability
from fusemix_core.prediction import Columns, Targets, Task
from fusemix_core.tasks.coding import as_texts, defined, fact_of, listed, mean_of
from fusemix_core.tasks.two_valued import counting_value, flags_of


class Multilabel(Task):
    """A yes or no per row and label: scores are logits, the loss is binary cross-entropy.

    Each label is a column of its own, under its own name. A row may miss some labels; the others
    are learnt from all the same.

    Args:
        labels: their names, which `learn` takes from the facts.
        positive: the value that means that a label applies, one for all or one for each; `learn`
            takes `1`, `true`, `yes` and the like.

    Example:
        task = Multilabel.learn({"toxic": facts["toxic"], "soluble": facts["soluble"]})
    """

    facts = ()
    gives = "labels"
    primary = "auc"

    def __init__(self, *, labels: Sequence[str] = (), positive: Any = None) -> None:
        self.names = tuple(labels)
        self.positive = tuple(as_texts(positive))

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Multilabel:
        labels = list(options.get("labels") or facts)
        if not labels:
            raise DataError("There is no label.", "Name their columns: --target COLUMN,COLUMN")
        given = as_texts(options.get("positive")) or [""]
        given = given * len(labels) if len(given) == 1 else given
        if len(given) != len(labels):
            raise ConfigError(
                f"There are {len(labels)} labels, and {len(given)} values that mean yes.",
                "Give one for all, or one for each: --task 'multilabel positive=yes'",
            )
        positive = [
            counting_value(fact_of(facts, name), value, f"label '{name}'", "multilabel positive")
            for name, value in zip(labels, given, strict=True)
        ]
        task = cls(**{**options, "labels": labels, "positive": positive})
        if not task._varying(task.targets(facts)).any():
            raise DataError(
                f"Each of {len(labels)} labels has one value only in the training rows: there is "
                "nothing to predict.",
                "Name other columns: --target COLUMN,COLUMN",
            )
        return task

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """float32 `[n, C]` of 0 and 1, and which are known."""
        found = [
            flags_of(facts[name], value)
            for name, value in zip(self.names, self.positive, strict=True)
        ]
        values, known = (np.stack(part, axis=1) for part in zip(*found, strict=True))
        return Targets(torch.from_numpy(values).float(), torch.from_numpy(known))

    @staticmethod
    def _varying(targets: Targets) -> Tensor:
        """bool `[C]`: the labels with both values."""
        positive, known = targets.values > 0, targets.known
        return (positive & known).any(dim=0) & (~positive & known).any(dim=0)

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        varying = self._varying(self.targets(facts)).tolist()
        same = [name for name, both in zip(self.names, varying, strict=True) if not both]
        if not same:
            return []
        have = "label {} has" if len(same) == 1 else "labels {} have"
        return [
            f"The {have.format(listed(same))} one value only in the training rows: nothing is "
            "learnt of it, and no AUC measured. Leave such columns out of --target."
        ]

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        return (2 * targets.values - 1) * targets.known, targets.known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        truth = targets.values.to(scores)
        values = binary_cross_entropy_with_logits(scores, truth, reduction="none")
        return mean_of(values, targets.known, weight)

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` has the names of the labels above one half, separated by `;`."""
        probabilities = self.probabilities(scores.detach().cpu().double()).numpy()
        found = [
            ";".join(name for name, p in zip(self.names, row, strict=True) if p > 0.5)
            for row in probabilities
        ]
        columns = {f"probability_{n}": probabilities[:, k] for k, n in enumerate(self.names)}
        return {"prediction": found, **columns}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """Means over the labels that have both values in these rows, and the AUC of each label."""
        known = targets.known.cpu()
        if not known.any():
            raise DataError(
                f"No label is known in any of {len(targets):,} rows: nothing can be measured.",
                "Fill in the labels' columns, or predict without measuring.",
            )
        areas = self._of_labels(roc_auc, scores, targets)
        precisions = self._of_labels(average_precision, scores, targets)
        hits = ((scores.cpu() > 0) == (targets.values.cpu() > 0))[known]
        found = {
            "auc": _mean(areas),
            "average_precision": _mean(precisions),
            "log_loss": float(self.loss(scores.detach().cpu().double(), targets.to("cpu"))),
            "ece": self.reliability(scores, targets).ece,
            "accuracy": float(hits.double().mean()),
            **{f"auc_{name}": area for name, area in zip(self.names, areas, strict=True)},
        }
        return defined(found)

    def reliability(self, scores: Tensor, targets: Targets) -> Reliability:
        """How often labels apply, over their probability; of all known labels together."""
        known = targets.known.cpu()
        probabilities = self.probabilities(scores.detach().cpu().double())
        return reliability(probabilities[known].numpy(), (targets.values.cpu() > 0)[known].numpy())

    def _of_labels(self, measure: Any, scores: Tensor, targets: Targets) -> list[float]:
        """A measure of each label's known rows, NaN for a label with one value in them."""
        logits = scores.detach().cpu().double().numpy()
        values, known = targets.values.cpu().numpy() > 0, targets.known.cpu().numpy()
        varying = self._varying(targets).tolist()
        return [
            measure(logits[rows, k], values[rows, k]) if varying[k] else float("nan")
            for k, rows in enumerate(known.T)
        ]

    def score(self, scores: Tensor, targets: Targets) -> float:
        return _mean(self._of_labels(roc_auc, scores, targets))

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        logits = scores.detach().cpu().double().numpy()
        values, known = targets.values.cpu().numpy() > 0, targets.known.cpu().numpy()
        areas = np.stack([
            samples.roc_auc(logits[rows, k], values[rows, k], times[:, rows])
            for k, rows in enumerate(known.T)
            if rows.any()
        ])  # fmt: skip
        defined = ~np.isnan(areas)
        count = defined.sum(axis=0)
        sums = np.where(defined, areas, 0.0).sum(axis=0)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    def baseline(self, targets: Targets) -> Tensor:
        """The log odds of each label's share, with one more row of either value."""
        known = targets.known.sum(dim=0)
        share = ((targets.values * targets.known).sum(dim=0) + 1) / (known + 2)
        return share.logit()

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.sigmoid() for one in scores]).mean(dim=0).logit(eps=1e-7)


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are defined, NaN if none is."""
    found = [value for value in values if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")
