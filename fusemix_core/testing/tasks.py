"""`check_task`: whether a task keeps its contract."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.prediction import Calibration, Targets, Task
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect
from fusemix_core.testing.task_case import Made, facts_for, made, same

TASK = Suite("task", least=20)
add_declaration_checks(TASK)


def check_task(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Fact] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a task: a registered name, a ComponentSpec or a class, learnt with `options`.

    Args:
        facts: 30 rows or more to learn from, some of them missing. By default the kit has three
            classes or numbers for `target`, and facts for `time` and `event`, or for three labels.

    Example:
        check_task("classify").raise_if_failed()
    """
    TASK.expected(expected_failures)
    case = prepare(subject, options, facts, registry)
    return TASK.run(case.name, case, expected_failures)


def prepare(
    subject: Subject,
    options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Fact] | None = None,
    registry: Registry = registry,
) -> ComponentCase:
    """The case of a task, with the facts that it learns from."""
    case = find("task", subject, options, registry)
    case.facts = facts or {}
    return case


@TASK.check()
def is_a_task(case: ComponentCase) -> None:
    """It is a Task, and says its primary metric."""
    task = made(case).task
    expect(isinstance(task, Task), f"{type(task).__name__} is not a subclass of Task")
    expect(isinstance(getattr(task, "primary", None), str), "`primary` names no metric")
    expect(task.outputs == len(task.names) > 0, f"{task.outputs} outputs named {task.names}")


@TASK.check()
def built_from_options(case: ComponentCase) -> None:
    """Its `options`, as JSON keeps them, build a task that does the same."""
    one = made(case)
    again = case.target(**json.loads(json.dumps(one.task.options, allow_nan=False)))
    expect(same(again.targets(one.facts), one.targets), "built again it has other targets")
    equal = torch.equal(again.probabilities(one.scores), one.task.probabilities(one.scores))
    expect(equal and again.names == one.task.names, "built again it decodes otherwise")


@TASK.check()
def targets_row_by_row(case: ComponentCase) -> None:
    """The target of a row does not depend on the other rows."""
    one = made(case)
    rows = np.arange(len(one.targets))[::-2].copy()
    few = one.task.targets({name: fact.select(rows) for name, fact in one.facts.items()})
    expect(same(few, one.targets[torch.from_numpy(rows)]), "other targets among other rows")


@TASK.check()
def missing_is_not_known(case: ComponentCase) -> None:
    """Rows without a value aren't known; if all are, `learn` raises DataError with a hint."""
    one = made(case)
    gone = {name: fact.select(np.zeros(0, int)) for name, fact in one.facts.items()}
    gone = {name: fact.with_missing(4) for name, fact in gone.items()}
    expect(not one.task.targets(gone).known.any(), "rows without a value are known")
    try:
        case.target.learn(gone, **case.options)
    except DataError as error:
        expect(error.hint, "its error has no hint")
        return
    expect(False, "it learns from rows that are all missing, and raises no DataError")


@TASK.check(when=lambda case: _is_of_classes(case))
def unseen_classes(case: ComponentCase) -> None:
    """A class that training had not is not known, and counted."""
    one = made(case)
    others = {"target": Fact("class", np.zeros(3, np.int64), ("never seen",))}
    expect(not one.task.targets(others).known.any(), "a class that it never saw is known")
    found = one.task.unseen(others)
    expect(found == {"never seen": 3}, f"3 rows of an unseen class; it says {found}")


def _is_of_classes(case: ComponentCase) -> bool:
    try:
        return [fact.kind for fact in facts_for(case).values()] == ["class"]
    except Exception:
        return False


@TASK.check()
def responses(case: ComponentCase) -> None:
    """Working responses are finite float32 `[n, C]`; those that aren't known are 0."""
    one = made(case)
    values, known = one.task.responses(one.targets)
    shape = [len(one.targets), one.task.outputs]
    expect(list(values.shape) == list(known.shape) == shape, f"{list(values.shape)}, not {shape}")
    right = values.dtype == torch.float32 and known.dtype == torch.bool
    expect(right, f"{values.dtype} and {known.dtype}")
    expect(values.isfinite().all() and (values[~known] == 0).all(), "not finite, or not 0")
    expect(torch.equal(known.any(dim=1), one.targets.rows), "other rows are known than in targets")


@TASK.check()
def responses_are_the_right_way(case: ComponentCase) -> None:
    """Scores near the working responses have a better primary metric than the baseline."""
    one = made(case)
    good, none = (one.task.score(s, one.targets) for s in (one.good, one.constant))
    sign = 1 if one.task.greater_is_better else -1
    expect(math.isfinite(good), "the metric of good scores is undefined")
    expect(not sign * (good - none) <= 0, f"{good:.3g} with the responses, {none:.3g} without")


@TASK.check()
def differentiable(case: ComponentCase) -> None:
    """The loss is a scalar whose gradient is its derivative."""
    one = made(case)
    scores = one.scores.double().requires_grad_()
    loss = one.task.loss(scores, one.targets)
    expect(loss.ndim == 0 and loss.isfinite(), f"the loss is {loss}")
    expect(loss.requires_grad, "the loss has no gradient")
    right = torch.autograd.gradcheck(
        lambda s: one.task.loss(s, one.targets), scores, raise_exception=False, fast_mode=True
    )
    expect(right, "the gradient is not the derivative")


@TASK.check()
def unknown_rows_have_no_part(case: ComponentCase) -> None:
    """Scores of rows that aren't known change neither the loss nor a metric."""
    one = made(case)
    other = one.scores.clone()
    other[~one.targets.rows] = 1e4
    first, second = (one.loss(s) for s in (one.scores, other))
    expect(math.isclose(first, second, rel_tol=1e-9), f"the loss is {second}, not {first}")
    first, second = (one.task.metrics(s, one.targets) for s in (one.scores, other))
    expect(first == second, "other metrics")


@TASK.check()
def nothing_known(case: ComponentCase) -> None:
    """Of a batch in which nothing is known the loss is 0, and so is its gradient."""
    one = made(case)
    scores = one.scores.clone().requires_grad_()
    none = Targets(one.targets.values, torch.zeros_like(one.targets.known))
    loss = one.task.loss(scores, none)
    expect(loss == 0, f"the loss is {loss}")
    (slope,) = torch.autograd.grad(loss, scores, allow_unused=True)
    expect(slope is None or (slope == 0).all(), "the gradient is not 0")


@TASK.check()
def weighted(case: ComponentCase) -> None:
    """A row of weight 2 counts as two rows, one of weight 0 as none."""
    one = made(case)
    weight = torch.arange(len(one.targets)) % 3
    rows = torch.arange(len(one.targets)).repeat_interleave(weight)
    found = one.task.loss(one.scores.double(), one.targets, weight.double())
    wanted = one.task.loss(one.scores.double()[rows], one.targets[rows])
    expect(torch.allclose(found, wanted), f"the loss is {found}, of repeated rows {wanted}")


@TASK.check()
def baseline(case: ComponentCase) -> None:
    """No constant scores have a lower loss than the baseline, but for its smoothing."""
    one = made(case)
    start = one.task.baseline(one.targets)
    right = start.dtype == torch.float32 and list(start.shape) == [one.task.outputs]
    expect(right, f"{list(start.shape)}, {start.dtype}")
    for k in range(one.task.outputs):
        for step in (-0.3, 0.3):
            moved = one.constant.clone()
            moved[:, k] += step
            better = one.loss(one.constant) - one.loss(moved)
            expect(better <= 1e-6, f"{step} more for {one.task.names[k]} has a lower loss")


@TASK.check()
def metrics_are_numbers(case: ComponentCase) -> None:
    """Metrics are finite numbers, or None; the primary one is among them."""
    one = made(case)
    for scores in (one.scores, one.constant):
        found = one.task.metrics(scores, one.targets)
        expect(one.task.primary in found, f"no {one.task.primary} in {list(found)}")
        for name, value in found.items():
            fine = value is None or (isinstance(value, float) and math.isfinite(value))
            expect(fine, f"{name} is {value!r}")


@TASK.check()
def score_is_the_primary_metric(case: ComponentCase) -> None:
    """`score` gives the primary metric."""
    one = made(case)
    found, wanted = one.task.score(one.good, one.targets), one.task.metrics(one.good, one.targets)
    expect(found == wanted[one.task.primary], f"{found}, not {wanted[one.task.primary]}")


@TASK.check()
def resampled(case: ComponentCase) -> None:
    """`resampled` gives the primary metric of each sample's rows."""
    one = made(case)
    times = np.random.default_rng(0).integers(0, 3, (3, len(one.targets)))
    found = one.task.resampled(one.good, one.targets, times)
    rows = [torch.from_numpy(np.repeat(np.arange(len(one.targets)), t)) for t in times]
    wanted = [one.task.score(one.good[index], one.targets[index]) for index in rows]
    equal = np.allclose(found, wanted, rtol=1e-6, equal_nan=True)
    expect(np.shape(found) == (3,) and equal, f"{found}, not {wanted}")


@TASK.check()
def scored_per_row(case: ComponentCase) -> None:
    """`per_row` is None; or larger for better scores, and NaN for rows that aren't known."""
    one = made(case)
    good, none = (one.task.per_row(s, one.targets) for s in (one.good, one.constant))
    if good is None or none is None:
        expect(good is none, "`per_row` is None for only some scores")
        return
    expect(list(good.shape) == [len(one.targets)], f"{list(good.shape)}")
    expect(torch.equal(good.isnan(), ~one.targets.rows), "NaN for other rows")
    expect(good.nanmean() > none.nanmean(), "better scores have no larger mean")


@TASK.check()
def probabilities(case: ComponentCase) -> None:
    """`probabilities` are finite and as `gives` says, row by row."""
    one = made(case)
    found = one.task.probabilities(one.scores.double())
    expect(len(found) == len(one.scores) and found.isfinite().all(), "not finite, or of other rows")
    few = one.task.probabilities(one.scores.double()[::3])
    expect(torch.allclose(few, found[::3]), "other probabilities among other rows")
    kind = one.task.gives
    inside = kind in ("values", "") or ((found >= 0) & (found <= 1)).all()
    expect(inside, f"{kind} outside of 0 to 1")
    if kind == "classes":
        expect(torch.allclose(found.sum(dim=1), found.new_ones(())), "they don't sum to 1")
    if kind == "survival":
        expect((found.diff(dim=1) <= 0).all(), "survival rises")
    shape = [len(found)] if kind == "values" else [len(found), len(one.task.columns)]
    expect(kind == "" or list(found.shape) == shape, f"{list(found.shape)}, not {shape}")


@TASK.check()
def decoded(case: ComponentCase) -> None:
    """`decode` gives columns of n values, `prediction` among them."""
    one = made(case)
    table = one.task.decode(one.scores)
    expect("prediction" in table, f"no prediction in {list(table)}")
    for name, column in table.items():
        expect(len(column) == len(one.scores), f"{len(column)} values in {name}")


@TASK.check()
def calibrated(case: ComponentCase) -> None:
    """Calibrated scores have no higher loss, and are finite."""
    one = made(case)
    found = one.task.calibrate(one.good, one.targets)
    expect(isinstance(found, Calibration) and found.scale > 0, f"{found}")
    expect(found(one.good).isfinite().all(), "calibrated scores are not finite")
    before, after = one.loss(one.good), one.loss(found(one.good.double()))
    expect(after <= before + 1e-2, f"the loss is {after:.4g}, {before:.4g} before")


@TASK.check()
def settled(case: ComponentCase) -> None:
    """`settle` gives a task that its options build again, and leaves the first as it was."""
    one = made(case)
    before = json.dumps(one.task.options)
    found = one.task.settle(one.good, one.targets)
    expect(json.dumps(one.task.options) == before, "it changed itself")
    expect(found.names == one.task.names, "it has other outputs")
    again = case.target(**json.loads(json.dumps(found.options, allow_nan=False)))
    equal = torch.equal(again.probabilities(one.scores), found.probabilities(one.scores))
    expect(equal, "built again it decodes otherwise")


@TASK.check()
def averaged(case: ComponentCase) -> None:
    """The average of one model's scores, once or twice, decodes as that model."""
    one = made(case)
    wanted = one.task.probabilities(one.scores)
    for count in (1, 2):
        found = one.task.probabilities(one.task.average([one.scores] * count))
        expect(torch.allclose(found, wanted, atol=1e-4), f"of {count} it decodes otherwise")


@TASK.check()
def deterministic(case: ComponentCase) -> None:
    """Learnt again from the same rows it is the same, and so are its losses and metrics."""
    first, second = made(case), made(case)
    expect(first.task.options == second.task.options, "learnt again it has other options")
    for one in (first, second):
        expect(one.loss(one.scores) == first.loss(first.scores), "another loss")
    found = [one.task.metrics(one.good, one.targets) for one in (first, second)]
    expect(found[0] == found[1], "other metrics")


@TASK.check()
def input_unmodified(case: ComponentCase) -> None:
    """Facts, scores and targets stay as they were."""
    facts = facts_for(case)
    kept = {name: fact.values.copy() for name, fact in facts.items()}
    one = made(case, facts)
    scores, targets = one.scores.clone(), one.targets
    values, known = targets.values.clone(), targets.known.clone()
    _use(case, one)
    for name, fact in one.facts.items():
        equal = np.array_equal(fact.values, kept[name], equal_nan=fact.kind != "class")
        expect(equal, f"it changed the fact {name}")
    expect(torch.equal(one.scores, scores), "it changed the scores")
    equal = torch.equal(targets.values, values) and torch.equal(targets.known, known)
    expect(equal, "it changed the targets")


@TASK.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    expect_nothing_changed(lambda: _use(case, made(case)))


def _use(case: ComponentCase, one: Made) -> None:
    """Whatever a run calls."""
    task = case.target.learn(one.facts, **case.options)
    task.notes(one.facts)
    task.responses(one.targets)
    calibration = task.calibrate(one.scores, one.targets)
    task = task.settle(calibration(one.scores), one.targets)
    for use in (task.loss, task.metrics, task.score, task.per_row, task.reliability):
        use(one.scores, one.targets)
    task.baseline(one.targets)
    task.probabilities(one.scores)
    task.decode(one.scores)
