"""The ways to predict that are compared: baselines, each modality by itself, and fusers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from fusemix_core.config import Part
from fusemix_core.context import FitContext
from fusemix_core.fuser import Fitted, Fuser, Labelled
from fusemix_core.prediction import Task
from fusemix_core.registry import Registry, registry

Kind = Literal["baseline", "single", "fuser"]
NOTHING = "no modality"
"""The candidate that predicts the same for every row."""
MEAN = "mean of modalities"
"""The candidate that averages the modalities' probabilities."""
STACK = "stack"
_ROWS = 4096
"""Rows that are predicted at once."""


@dataclass(frozen=True)
class Candidate:
    """One way to predict.

    Attributes:
        name: of the fuser, of the modality, or what the baseline does.
        kind: `baseline`, `single` for one modality by itself, or `fuser`.
        predict: rows → scores float32 `[n, C]`.
        seconds: that its fit took; 0 if it is a by-product of another.
        fit: its fuser, and scores of training rows that were left out; None unless it is a fuser.
    """

    name: str
    kind: Kind
    predict: Callable[[Labelled], Tensor] = field(repr=False)
    seconds: float = 0.0
    fit: Fitted | None = field(default=None, repr=False)

    @property
    def fitted(self) -> Fitted:
        """The fit of a fuser."""
        assert self.fit is not None, f"'{self.name}' is not a fuser"
        return self.fit


@torch.no_grad()
def scores_of(fuser: Fuser, rows: Labelled, nothing: Tensor, only: Iterable[str] = ()) -> Tensor:
    """The scores of rows by a fuser, float32 `[n, C]`.

    Args:
        fuser: in eval mode.
        rows: what is predicted; targets have no part in it.
        nothing: `[C]`, the scores of a row that has none of the modalities.
        only: the modalities that may be used; all, if there are none.
    """
    allowed = torch.tensor([not only or m in set(only) for m in rows.modalities])
    rows = rows.as_taken_by(fuser)
    found = nothing.float().expand(len(rows), -1).clone()
    able = (rows.present & allowed).any(dim=1).nonzero()[:, 0]
    for part in able.split(_ROWS):
        own = rows.select(part)
        latents = {m: own.latents(m) for m in own.modalities}
        found[part] = fuser(latents, own.present & allowed).float().cpu()
    return found


def fit_candidates(
    train: Labelled,
    validation: Labelled,
    task: Task,
    fusers: Mapping[str, Part],
    context: FitContext,
    stage: Callable[[str], None] = lambda text: None,
    registry: Registry = registry,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, Candidate]:
    """Every candidate, fitted to `train`, by name: the simplest first.

    Args:
        train, validation: rows with a target.
        task: what is predicted.
        fusers: name → fuser. A `stack` is fitted anyway: each modality by itself is part of it.
        context: as aligners get it.
        stage: gets the name of each fit that begins.
        failed: gets the name of a fuser that can't be fitted, and why; that fuser is left out.
            Without it the error is raised.
    """
    nothing = task.baseline(train.targets)
    found = {NOTHING: Candidate(NOTHING, "baseline", lambda rows: nothing.expand(len(rows), -1))}
    taken: dict[tuple[str, ...], list[Labelled]] = {}

    def fit(name: str, part: Part) -> Candidate:
        stage(name)
        began = time.monotonic()
        target = registry.target_of(registry.check("fuser", part))
        if target.uses not in taken:
            taken[target.uses] = [one.as_taken_by(target) for one in (train, validation)]
        folder = context.checkpoints and context.checkpoints / name
        own = replace(context, checkpoints=folder)
        done = target.fit(*taken[target.uses], task, own, **part.options)
        seconds = time.monotonic() - began
        return Candidate(
            name, "fuser", lambda rows: scores_of(done.fuser, rows, nothing), seconds, done
        )

    (_, stack), *others = {STACK: Part(STACK), **fusers}.items()
    fitted = fit(STACK, stack)
    for modality in train.modalities:
        found[modality] = Candidate(modality, "single", _only(fitted, modality, nothing))
    if len(train.modalities) > 1:
        found[MEAN] = Candidate(MEAN, "baseline", _mean(fitted, task, nothing))
    found[STACK] = fitted
    for name, part in others:
        try:
            found[name] = fit(name, part)
        except Exception as error:  # a plugin raises what it likes
            if failed is None:
                raise
            failed(name, error)
    return found


def grown_candidates(
    former: Fuser, grown: Fuser, task: Task, nothing: Tensor, seconds: float
) -> dict[str, Candidate]:
    """The candidates of a stack that got a further modality: nothing, each modality by itself, the
    former modalities together, and all of them.

    Args:
        former, grown: the stack before and after.
        task: what is predicted.
        nothing: `[C]`, the scores of a row that has none of the modalities.
        seconds: that the fit took.
    """
    found = {NOTHING: Candidate(NOTHING, "baseline", lambda rows: nothing.expand(len(rows), -1))}
    stack = Candidate(
        STACK, "fuser", lambda rows: scores_of(grown, rows, nothing), seconds, Fitted(grown)
    )
    for modality in grown.inputs:
        found[modality] = Candidate(modality, "single", _only(stack, modality, nothing))
    if len(former.inputs) > 1:
        name, before = " + ".join(former.inputs), tuple(former.inputs)
        found[name] = Candidate(name, "single", _only(stack, before, nothing))
    return {**found, STACK: stack}


def _only(
    stack: Candidate, modalities: str | Sequence[str], nothing: Tensor
) -> Callable[[Labelled], Tensor]:
    only = [modalities] if isinstance(modalities, str) else modalities
    return lambda rows: scores_of(stack.fitted.fuser, rows, nothing, only)


def _mean(stack: Candidate, task: Task, nothing: Tensor) -> Callable[[Labelled], Tensor]:
    def predict(rows: Labelled) -> Tensor:
        found = nothing.float().expand(len(rows), -1).clone()
        each = {m: _only(stack, m, nothing)(rows) for m in rows.modalities}
        for pattern in rows.present.unique(dim=0):
            own = (rows.present == pattern).all(dim=1)
            there = [m for m, has in zip(rows.modalities, pattern.tolist(), strict=True) if has]
            if there:
                found[own] = task.average([each[m][own] for m in there]).float()
        return found

    return predict
