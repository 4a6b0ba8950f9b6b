"""A task that the kit checks: facts that it learns from, its targets, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.prediction import Targets, Task
from fusemix_core.testing.components import ComponentCase

ROWS = 60


def facts_for(case: ComponentCase) -> Mapping[str, Fact]:
    """Facts that the task can learn from. Raises `ConfigError` if the kit has none."""
    if case.facts:
        return case.facts
    draw = np.random.default_rng(0)
    gone = np.arange(ROWS) % 7 == 3
    number = np.where(gone, np.nan, draw.normal(5, 2, ROWS)).astype(np.float32)
    flag = np.where(gone, np.nan, draw.integers(0, 2, ROWS)).astype(np.float32)
    names = tuple(getattr(case.target, "facts", ("target",)))
    if not names:
        return {f"label {k}": Fact("number", np.roll(flag, 5 * k)) for k in range(3)}
    if set(names) == {"time", "event"}:
        return {"time": Fact("number", np.exp(number / 5)), "event": Fact("number", flag)}
    if names != ("target",):
        raise ConfigError(f"The kit has no facts named {', '.join(names)}.", "Give some: facts={…}")
    boxes = np.sort(draw.uniform(size=(ROWS, 2, 2)), axis=1).reshape(ROWS, 4).astype(np.float32)
    boxes[gone] = np.nan
    tags = tuple("".join(draw.choice(["0 ", "0 ", "1 "], 6)).strip() for _ in range(ROWS))
    of_class = Fact("class", np.where(gone, -1, draw.integers(0, 3, ROWS)), ("0", "1", "2"))
    of_tags = Fact("text", np.where(gone, -1, np.arange(ROWS)), tags)
    for fact in (of_class, Fact("number", number), Fact("box", boxes), of_tags):
        try:
            case.target.learn({"target": fact.select(np.arange(ROWS))}, **case.options)
        except FusemixError:
            continue
        return {"target": fact}
    raise ConfigError(
        f"The kit has no facts from which {case.name} learns.", "Give some: facts={…}"
    )


@dataclass(frozen=True)
class Made:
    """A learnt task, its facts and targets, and scores that know nothing."""

    task: Task
    facts: Mapping[str, Fact]
    targets: Targets
    scores: Tensor

    @property
    def good(self) -> Tensor:
        """Scores that know the targets: the working responses, with a little noise."""
        return self.task.responses(self.targets)[0] + 0.1 * self.scores

    @property
    def constant(self) -> Tensor:
        """The baseline's scores `[n, C]`."""
        return self.task.baseline(self.targets).expand(len(self.scores), -1)

    def loss(self, scores: Tensor) -> float:
        return float(self.task.loss(scores.double(), self.targets))


def made(case: ComponentCase, facts: Mapping[str, Fact] | None = None) -> Made:
    facts = facts_for(case) if facts is None else facts
    task = case.target.learn(facts, **case.options)
    targets = task.targets(facts)
    draw = torch.Generator().manual_seed(1)
    return Made(task, facts, targets, torch.randn(len(targets), len(task.names), generator=draw))


def same(first: Targets, second: Targets) -> bool:
    known = first.known
    return torch.equal(known, second.known) and torch.equal(
        first.values[known], second.values[known]
    )
