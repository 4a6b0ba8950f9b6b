"""All candidates fitted and measured: which one is chosen, what it gains, and what each modality
gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fusemix_core.config import Part
from fusemix_core.context import FitContext
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.further import with_modality
from fusemix_core.fusers.stack import Stack
from fusemix_core.fusion.boosting import BOOSTING, boosting
from fusemix_core.fusion.candidates import (
    MEAN,
    NOTHING,
    STACK,
    Candidate,
    fit_candidates,
    grown_candidates,
    scores_of,
)
from fusemix_core.fusion.parts import Measures, measures, metrics
from fusemix_core.fusion.parts import Part as Rows
from fusemix_core.fusion.shares import Share, Subset, needed, shapley
from fusemix_core.prediction import Task
from fusemix_core.tasks.conformal import Conformal

RATES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Shares of entries that are taken away at test."""
_DRAWS = 3
_RESAMPLES = 200


@dataclass(frozen=True)
class Fitted:
    """The candidates of one fold, and its rows."""

    task: Task
    train: Labelled
    validation: Labelled
    test: Labelled
    rows: np.ndarray
    candidates: dict[str, Candidate]


@dataclass
class Study:
    """The findings. All measures are of test rows unless their name says otherwise.

    Attributes:
        folds: the fits.
        kinds: candidate → `baseline`, `single` or `fuser`.
        validation: the primary metric on validation rows, by which was chosen.
        chosen: the fuser that was chosen, or that the user named.
        single: the best modality by itself, on validation.
    """

    folds: list[Fitted]
    kinds: dict[str, str]
    validation: Measures
    chosen: str
    single: str
    test: Measures = field(init=False)
    parts: list[Rows] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = [_rows(one, one.test, one.rows) for one in self.folds]
        self.test = measures(self.parts)

    @property
    def fusers(self) -> list[str]:
        """The names of fusers, the simplest first."""
        return [name for name, kind in self.kinds.items() if kind == "fuser"]

    def subset(self, subset: Subset) -> list[Rows]:
        """The test rows as the chosen fuser predicts them from only some modalities."""
        found = []
        for one in self.folds:
            nothing = one.task.baseline(one.train.targets)
            if subset:
                fuser = one.candidates[self.chosen].fitted.fuser
                scores = scores_of(fuser, one.test, nothing, subset)
            else:
                scores = nothing.expand(len(one.test), -1)
            groups = one.test.groups.numpy()
            found.append(Rows(one.task, one.test.targets, groups, {"": scores}, one.rows))
        return found

    def shares(self, seed: int = 0) -> dict[str, Share]:
        """The Shapley value of each modality."""

        def value(subset: Subset) -> np.ndarray:
            found = measures(self.subset(subset), resamples=_RESAMPLES, seed=seed)
            drawn = found.values if found.drawn is None else np.append(found.values, found.drawn)
            return found.sign * drawn

        return shapley(self.folds[0].test.modalities, value, seed)

    def combinations(self) -> dict[str, float]:
        """The primary metric from each combination of modalities: `image + text` → value."""
        every = needed(self.folds[0].test.modalities)
        return {
            " + ".join(one): measures(self.subset(one), resamples=0).value("")
            for one in every
            if one
        }

    def by_missing(self, seed: int = 0) -> list[tuple[float, float]]:
        """(share of entries that are taken away at random, primary metric). A row keeps one."""
        found = []
        for rate in RATES:
            values = [self._without(rate, seed + k) for k in range(_DRAWS if rate else 1)]
            found.append((rate, float(np.mean(values))))
        return found

    def _without(self, rate: float, seed: int) -> float:
        parts = []
        for one in self.folds:
            links = one.test.pairs.links.clone()
            draw = torch.rand(links.shape, generator=torch.Generator().manual_seed(seed))
            gone = draw < rate
            stays = draw.masked_fill(links < 0, -1.0).argmax(dim=1)
            gone[torch.arange(len(links)), stays] = False
            links[gone] = -1
            test = one.test.with_links(links)
            nothing = one.task.baseline(one.train.targets)
            scores = scores_of(one.candidates[self.chosen].fitted.fuser, test, nothing)
            parts.append(Rows(one.task, test.targets, test.groups.numpy(), {"": scores}, one.rows))
        return measures(parts, resamples=0).value("")

    def conformal(self) -> dict[str, float] | None:
        """Coverage and size of prediction sets that validation rows calibrate; the mean over the
        folds. None if the task has none."""
        each = []
        for one in self.folds:
            predict = one.candidates[self.chosen].predict
            made = Conformal.fit(one.task, predict(one.validation), one.validation.targets)
            if made is None:
                return None
            each.append(made.measured(one.task, predict(one.test), one.test.targets))
        return {key: float(np.mean([one[key] for one in each])) for key in each[0]}

    def verdict(self) -> str:
        """Whether several modalities together are better than the best one, in a sentence."""
        gain = self.test.difference(self.chosen, self.single)
        name = self.folds[0].task.primary
        if len(self.folds[0].test.modalities) == 1:
            return f"There is one modality, {self.single}."
        if np.isnan(gain.value):
            return f"{name} is undefined on the test rows: whether fusing helps can't be measured."
        if gain.interval is None:
            return "There are too few groups of rows to measure whether fusing helps."
        low, high = gain.interval
        shown = f"{gain.value:+.3f} [{low:+.3f}, {high:+.3f}] {name}"
        if gain.better:
            return f"All modalities together are better than only {self.single}: {shown}."
        if gain.worse:
            return f"All modalities together are worse than only {self.single}: {shown}."
        return f"No gain: all modalities together do not differ from only {self.single}: {shown}."


def _rows(one: Fitted, rows: Labelled, numbers: np.ndarray) -> Rows:
    scores = {name: candidate.predict(rows) for name, candidate in one.candidates.items()}
    return Rows(one.task, rows.targets, rows.groups.numpy(), scores, numbers)


def study(
    folds: Sequence[tuple[Task, Labelled, Labelled, Labelled, np.ndarray]],
    fusers: dict[str, Part],
    wanted: str,
    contexts: Sequence[FitContext],
    stage: Callable[[str], None] = lambda text: None,
    failed: Callable[[str, Exception], None] | None = None,
) -> Study:
    """Fit every candidate on every fold, choose on validation, and measure the test rows once.

    Args:
        folds: task, training, validation and test rows, and the numbers of the test rows.
        fusers: those to fit beside `stack`, by name.
        wanted: the fuser that the user names; `auto` to choose.
        contexts: of the fits, one for each fold.
        stage: gets the stages.
        failed: as `fit_candidates` has it.
    """
    found, chosen_by = [], []
    for number, ((task, train, validation, test, rows), context) in enumerate(
        zip(folds, contexts, strict=True)
    ):
        of = f"fold {number + 1} of {len(folds)}, " if len(folds) > 1 else ""
        candidates = fit_candidates(
            train,
            validation,
            task,
            fusers,
            context,
            lambda name, of=of: stage(f"{of}{name}"),
            failed=failed,
        )
        stage(f"{of}{BOOSTING}")
        candidates |= boosting(train, task, context.seed)
        found.append(Fitted(task, train, validation, test, rows, candidates))
        chosen_by.append(_rows(found[-1], validation, np.arange(len(validation))))
    by = measures(chosen_by)
    kinds = {name: one.kind for name, one in found[0].candidates.items()}
    able = [name for name, kind in kinds.items() if kind == "fuser" and name != "concat"]
    chosen = by.simplest(able) if wanted == "auto" else wanted
    single = by.best(name for name, kind in kinds.items() if kind == "single")
    return Study(found, kinds, by, chosen, single)


def study_of_growth(
    fold: tuple[Task, Labelled, Labelled, Labelled, np.ndarray], former: Stack
) -> Study:
    """Fit a further modality to a stack, and measure what it adds to the former ones.

    Args:
        fold: task, training, validation and test rows, and the numbers of the test rows. `former`
            was not fitted to any of them.
        former: the stack, whose modalities stay as they are.
    """
    task, train, validation, test, rows = fold
    began = time.monotonic()
    grown = with_modality(former, train, task)
    seconds, nothing = time.monotonic() - began, task.baseline(train.targets)
    candidates = grown_candidates(former, grown, task, nothing, seconds)
    one = Fitted(task, train, validation, test, rows, candidates)
    by = measures([_rows(one, validation, np.arange(len(validation)))])
    kinds: dict[str, str] = {name: one.kind for name, one in candidates.items()}
    return Study([one], kinds, by, STACK, " + ".join(former.inputs))


def order_of(kinds: dict[str, str]) -> list[str]:
    """Candidates as a table lists them: what uses nothing, each modality, then all together."""
    singles = [name for name, kind in kinds.items() if kind == "single"]
    fusers = [name for name, kind in kinds.items() if kind == "fuser"]
    others = [name for name in (MEAN, BOOSTING) if name in kinds]
    return [NOTHING, *singles, *others, *fusers]


def table(study: Study) -> dict[str, dict[str, Any]]:
    """Candidate → kind, test metrics, the interval of the primary one, the seconds of its fits, and
    the difference of the chosen one to it."""
    found = {}
    for name in order_of(study.kinds):
        found[name] = {
            "kind": study.kinds[name],
            "metrics": metrics(study.parts, name),
            "interval": study.test.interval(name),
            "validation": study.validation.value(name),
            "seconds": round(sum(one.candidates[name].seconds for one in study.folds), 2),
            "chosen_is_better_by": study.test.difference(study.chosen, name).as_dict(),
        }
    return found
