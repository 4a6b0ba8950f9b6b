"""`ordinal`: one of several classes in order, such as a grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.metrics import samples
from fusemix_core.metrics.classes import accuracy, quadratic_kappa
from fusemix_core.metrics.numbers import mae
from fusemix_core.metrics.reliability import Reliability, reliability
from fusemix_core.prediction import Columns, Targets, Task
from fusemix_core.tasks.coding import (
    as_texts,
    coded,
    counts_of,
    defined,
    fact_of,
    known_rows,
    listed,
    mean_of,
    one_class,
    single_rows,
    unseen_of,
)


class Ordinal(Task):
    """A class per row, of K in order: score k is the logit of being above class k.

    The loss is the mean binary cross-entropy of these K - 1 questions (Frank and Hall 2001).

    Args:
        order: the classes, the lowest first: a list, or a text with commas. `learn` takes numbers
            in their own order; names need it given.

    Example:
        task = Ordinal.learn({"target": facts["grade"]}, order=["low", "middle", "high"])
    """

    gives = "classes"
    primary = "kappa"

    def __init__(self, *, order: Any = None) -> None:
        self.order = tuple(as_texts(order))
        self.names = tuple(f"above_{name}" for name in self.order[:-1])

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Ordinal:
        counts = counts_of(fact_of(facts, "target"))
        order = as_texts(options.get("order"))
        if order:
            for name in counts:
                if name not in order:
                    raise UnknownNameError.of("class in the target's order", name, order)
        elif not all(_is_number(name) for name in counts):
            raise ConfigError(
                f"The classes {listed(list(counts))} have no order of their own.",
                f"Give it, the lowest first: --task 'ordinal order={','.join(counts)}'",
            )
        else:
            order = sorted(counts, key=float)
        if len(counts) == 1:
            raise one_class("target", *next(iter(counts.items())))
        return cls(**{**options, "order": order})

    @property
    def columns(self) -> tuple[str, ...]:
        return self.order

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """int64 `[n]`: the place in the order."""
        values = torch.from_numpy(coded(facts["target"], self.order))
        return Targets(values, values >= 0)

    def unseen(self, facts: Mapping[str, Fact]) -> dict[str, int]:
        return unseen_of(facts["target"], self.order)

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        return single_rows(counts_of(facts["target"]), self.order)

    def _above(self, targets: Targets) -> Tensor:
        """bool `[n, K - 1]`: whether a row is above each class."""
        return targets.values[:, None] > torch.arange(self.outputs, device=targets.values.device)

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        known = targets.known[:, None].expand(-1, self.outputs)
        return (2 * self._above(targets).float() - 1) * known, known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        truth = self._above(targets).to(scores)
        values = binary_cross_entropy_with_logits(scores, truth, reduction="none").mean(dim=1)
        return mean_of(values, targets.known, weight)

    def probabilities(self, scores: Tensor) -> Tensor:
        """`[n, K]`, from the probabilities of being above each class, which are made to fall."""
        above = scores.sigmoid().cummin(dim=1).values
        one, none = above.new_ones(len(above), 1), above.new_zeros(len(above), 1)
        return torch.cat([one, above], dim=1) - torch.cat([above, none], dim=1)

    def _places(self, scores: Tensor) -> Tensor:
        """int64 `[n]`: the median class."""
        return (scores.sigmoid().cummin(dim=1).values > 0.5).sum(dim=1)

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` is the median class."""
        scores = scores.detach().cpu().double()
        probabilities = self.probabilities(scores).numpy()
        found = [self.order[i] for i in self._places(scores).tolist()]
        columns = {f"probability_{n}": probabilities[:, k] for k, n in enumerate(self.order)}
        return {"prediction": found, **columns}

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """Places in the order are 0, 1, 2, … for `mae`."""
        logits, values = known_rows(scores, targets)
        found, truth = self._places(logits).numpy(), values.numpy()
        return defined(
            {
                "kappa": quadratic_kappa(truth, found, len(self.order)),
                "mae": mae(truth, found),
                "accuracy": accuracy(truth, found),
                "ece": self.reliability(scores, targets).ece,
            }
        )

    def reliability(self, scores: Tensor, targets: Targets) -> Reliability:
        """How often the median class is right, over its probability."""
        logits, values = known_rows(scores, targets)
        places = self._places(logits)
        confidence = self.probabilities(logits).gather(1, places[:, None])[:, 0]
        return reliability(confidence.numpy(), (places == values).numpy())

    def score(self, scores: Tensor, targets: Targets) -> float:
        logits, values = known_rows(scores, targets)
        return quadratic_kappa(values.numpy(), self._places(logits).numpy(), len(self.order))

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        logits, values = known_rows(scores, targets)
        drawn = times[:, targets.known.cpu().numpy()]
        found = self._places(logits).numpy()
        return samples.quadratic_kappa(values.numpy(), found, len(self.order), drawn)

    def baseline(self, targets: Targets) -> Tensor:
        """The log odds of being above each class, with one more row of either kind."""
        above = self._above(targets[targets.known])
        return ((above.sum(dim=0) + 1) / (len(above) + 2)).logit()

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.sigmoid() for one in scores]).mean(dim=0).logit(eps=1e-7)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
