"""`classify`: one of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from fusemix_core.data.facts import Fact
from fusemix_core.errors import UnknownNameError
from fusemix_core.metrics import samples
from fusemix_core.metrics.classes import (
    accuracy,
    auc_one_vs_rest,
    balanced_accuracy,
    f1_macro,
    log_loss,
)
from fusemix_core.metrics.ranks import average_precision, roc_auc
from fusemix_core.metrics.reliability import Reliability, reliability
from fusemix_core.prediction import Columns, Targets, Task
from fusemix_core.tasks.coding import (
    as_text,
    coded,
    counts_of,
    defined,
    fact_of,
    known_rows,
    mean_of,
    one_class,
    single_rows,
    unseen_of,
)


class Classify(Task):
    """One class per row: scores are logits, the loss is cross-entropy.

    Args:
        classes: their names, which `learn` takes from the training rows. Numbers are classes too.
        positive: of two classes, the one whose AUC and average precision are measured; the last one
            by default.
        weighted: whether each class weighs the same in the loss, however many rows it has. Its
            probabilities are then not those of the data.
        weights: of the classes in the loss, which `learn` sets if `weighted`.

    Example:
        task = Classify.learn({"target": dataset.facts["outcome"]})
    """

    gives = "classes"
    primary = "accuracy"

    def __init__(
        self,
        *,
        classes: Sequence[str] = (),
        positive: str | float | None = None,
        weighted: bool = False,
        weights: Sequence[float] = (),
    ) -> None:
        self.names = tuple(classes)
        chosen = as_text(positive)
        if chosen and self.names and chosen not in self.names:
            raise UnknownNameError.of("class of the target", chosen, self.names)
        last = len(self.names) - 1
        self.positive = self.names.index(chosen) if chosen and self.names else last
        self.weights = torch.tensor([float(w) for w in weights]) if weights else None

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Classify:
        counts = counts_of(fact_of(facts, "target"))
        names = list(options.get("classes") or counts)
        if len(names) == 1:
            raise one_class("target", names[0], int(counts.get(names[0], 0)))
        options = {**options, "classes": names}
        if options.get("weighted"):
            seen = np.array([max(counts.get(name, 0), 1) for name in names])
            options["weights"] = (seen.sum() / (len(names) * seen)).tolist()
        return cls(**options)

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        values = torch.from_numpy(coded(facts["target"], self.names))
        return Targets(values, values >= 0)

    def unseen(self, facts: Mapping[str, Fact]) -> dict[str, int]:
        return unseen_of(facts["target"], self.names)

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        return single_rows(counts_of(facts["target"]), self.names)

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        known = targets.known[:, None].expand(-1, self.outputs)
        values = one_hot(targets.values.clamp(min=0), self.outputs).float()
        return values * known, known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        truth = targets.values.clamp(min=0)
        values = cross_entropy(scores, truth, reduction="none")
        if self.weights is not None:
            of_class = self.weights.to(scores)[truth]
            weight = of_class if weight is None else of_class * weight.to(scores)
        return mean_of(values, targets.known, weight)

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores.softmax(dim=1)

    def decode(self, scores: Tensor) -> Columns:
        probabilities = self.probabilities(scores.detach().cpu().double()).numpy()
        found = [self.names[i] for i in probabilities.argmax(axis=1)]
        columns = {f"probability_{name}": probabilities[:, k] for k, name in enumerate(self.names)}
        return {"prediction": found, **columns}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        logits, values = known_rows(scores, targets)
        logarithms, truth = log_softmax(logits, dim=1).numpy(), values.numpy()
        found = logarithms.argmax(axis=1)
        metrics = {
            "accuracy": accuracy(truth, found),
            "balanced_accuracy": balanced_accuracy(truth, found),
            "f1_macro": f1_macro(truth, found),
            "log_loss": log_loss(logarithms, truth),
            "ece": self.reliability(scores, targets).ece,
        }
        if self.outputs == 2:
            ahead = (logits[:, self.positive] - logits[:, 1 - self.positive]).numpy()
            metrics["auc"] = roc_auc(ahead, truth == self.positive)
            metrics["average_precision"] = average_precision(ahead, truth == self.positive)
        else:
            metrics["auc"] = auc_one_vs_rest(logarithms, truth)
        return defined(metrics)

    def reliability(self, scores: Tensor, targets: Targets) -> Reliability:
        """The points of a reliability plot of the known rows."""
        logits, values = known_rows(scores, targets)
        highest = logits.softmax(dim=1).max(dim=1)
        return reliability(highest.values.numpy(), (highest.indices == values).numpy())

    def score(self, scores: Tensor, targets: Targets) -> float:
        logits, values = known_rows(scores, targets)
        return accuracy(values.numpy(), logits.argmax(dim=1).numpy())

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        known = targets.known.cpu().numpy()
        return samples.mean(self.per_row(scores, targets).numpy()[known], times[:, known])

    def per_row(self, scores: Tensor, targets: Targets) -> Tensor:
        hits = (scores.cpu().argmax(dim=1) == targets.values.cpu()).double()
        return torch.where(targets.known.cpu(), hits, torch.nan)

    def baseline(self, targets: Targets) -> Tensor:
        """The logarithms of the classes' shares, each class counted once more than it is there."""
        counts = torch.bincount(targets.values[targets.known], minlength=self.outputs)
        return ((counts + 1) / (counts + 1).sum()).log().float()

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        logarithms = torch.stack([log_softmax(one, dim=1) for one in scores])
        return logarithms.logsumexp(dim=0) - np.log(len(scores))
