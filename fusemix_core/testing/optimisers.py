"""`check_optimiser`: whether an optimiser keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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

OPTIMISER = Suite("optimiser", least=6)
add_declaration_checks(OPTIMISER)

LR = 1e-2


def check_optimiser(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an optimiser: a registered name, a ComponentSpec or a class, built with `options`."""
    OPTIMISER.expected(expected_failures)
    case = find("optimiser", subject, options, registry)
    return OPTIMISER.run(case.name, case, expected_failures)


class Problem:
    """A small least-squares problem: a matrix and an offset `[4]`, and an optimiser of both."""

    def __init__(self, case: ComponentCase, *, lr: float = LR, decay: float = 0.0) -> None:
        draw = torch.Generator().manual_seed(0)
        self.x, self.y = (torch.randn(32, d, generator=draw) for d in (6, 4))
        self.weight = nn.Parameter(torch.randn(4, 6, generator=draw))
        self.bias = nn.Parameter(torch.randn(4, generator=draw))
        groups = [
            {"params": [self.weight], "weight_decay": decay},
            {"params": [self.bias], "weight_decay": 0.0},
        ]
        self.optimiser = case.make(groups, lr)

    def values(self) -> list[Tensor]:
        return [self.weight.detach().clone(), self.bias.detach().clone()]

    def loss(self) -> Tensor:
        return (self.x @ self.weight.T + self.bias - self.y).square().mean()

    def steps(self, count: int) -> Problem:
        for _ in range(count):
            self.optimiser.zero_grad(set_to_none=True)
            self.loss().backward()
            self.optimiser.step()
        return self


def expect_same(got: list[Tensor], wanted: list[Tensor], what: str) -> None:
    same = all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    expect(same, f"{what}: other weights")


@OPTIMISER.check()
def is_an_optimiser(case: ComponentCase) -> None:
    """It is a torch optimiser with the groups that it was given."""
    optimiser = Problem(case).optimiser
    name = type(optimiser).__name__
    expect(isinstance(optimiser, torch.optim.Optimizer), f"{name} is not a torch.optim.Optimizer")
    expect(len(optimiser.param_groups) == 2, f"it has {len(optimiser.param_groups)} groups of 2")


@OPTIMISER.check()
def descends(case: ComponentCase) -> None:
    """Fifty steps bring the loss down."""
    problem = Problem(case)
    before = problem.loss().item()
    after = problem.steps(50).loss().item()
    expect(after < before, f"the loss went from {before:.4g} to {after:.4g}")


@OPTIMISER.check()
def obeys_its_rate(case: ComponentCase) -> None:
    """The rate of its groups counts, at each step: with 0 nothing moves."""
    problem = Problem(case).steps(2)
    for group in problem.optimiser.param_groups:
        group["lr"] = 0.0
    before = problem.values()
    expect_same(problem.steps(2).values(), before, "with lr=0")


@OPTIMISER.check()
def decays_what_it_is_told(case: ComponentCase) -> None:
    """The decay of a group draws its weights to 0, and leaves those of the other group."""
    free, decayed = (Problem(case, decay=d) for d in (0.0, 5.0))
    for problem in (free, decayed):
        problem.x, problem.y = torch.zeros_like(problem.x), problem.bias.detach() + 0.0 * problem.y
        problem.steps(5)  # every gradient is 0
    shrunk = decayed.weight.norm() < free.weight.norm()
    expect(shrunk, "weight_decay=5 did not shrink the weights of its group")
    expect_same([decayed.bias], [free.bias], "in the group without decay")


@OPTIMISER.check()
def skips_what_has_no_gradient(case: ComponentCase) -> None:
    """A parameter without a gradient stays, though its group decays."""
    problem = Problem(case, decay=1.0)
    before = problem.weight.detach().clone()
    problem.bias.grad = torch.ones_like(problem.bias)
    problem.optimiser.step()
    expect_same([problem.weight.detach()], [before], "without a gradient")


@OPTIMISER.check()
def resumes(case: ComponentCase) -> None:
    """Its state is tensors by name, and put into a new one goes on as if never stopped."""
    whole, first, second = Problem(case).steps(6), Problem(case).steps(3), Problem(case)
    state = first.optimiser.state_dict()["state"]
    for values in state.values():
        for name, value in values.items():
            expect(isinstance(value, Tensor), f"its state holds {name}: {type(value).__name__}")
    with torch.no_grad():
        second.weight.copy_(first.weight)
        second.bias.copy_(first.bias)
    kept = {i: {n: v.clone() for n, v in values.items()} for i, values in state.items()}
    second.optimiser.load_state_dict({**second.optimiser.state_dict(), "state": kept})
    expect_same(second.steps(3).values(), whole.values(), "stopped after three steps of six")


@OPTIMISER.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    expect_nothing_changed(lambda: Problem(case).steps(2))
