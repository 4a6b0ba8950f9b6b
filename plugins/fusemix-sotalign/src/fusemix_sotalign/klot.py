"""KLOT: the KL divergence from the transport plan of a student to that of its teacher.

Affinities `[n, m]` are larger where items are closer; the plans' marginals are uniform.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fusemix_core.numerics import once_differentiable

CHECK_EVERY = 5
"""Iterations from one look at the marginals to the next."""


def potentials(
    scaled: Tensor, iterations: int, tolerance: float = 0.0
) -> tuple[Tensor, Tensor, int]:
    """(u `[n]`, v `[m]`, number of the last iteration, from 0) of Sinkhorn's iterations.

    scaled: `[n, m]`, affinities over epsilon. They end before `iterations` where the rows of the
    plan exp(scaled + u + v) differ from 1/n by less than `tolerance` in the mean. On a GPU nobody
    reads when that is: there all are made, and those after the end change nothing.
    """
    u = _rows(scaled, scaled.new_zeros(scaled.shape[1]))
    v = _rows(scaled.T, u)
    if scaled.device.type != "cpu":
        return *_unread(scaled, u, v, iterations, tolerance), iterations - 1
    done = 1
    # Products of a plan with factors of rows and columns are several times faster than logarithms,
    # and as good where no entry that may come to count is below the least number of the type.
    update = _factors if scaled.max() - scaled.min() < _widest(scaled.dtype) else _logarithms
    while done < iterations:
        plan = (scaled + u[:, None] + v).exp()
        if tolerance and (plan.sum(1) - 1 / len(plan)).abs().mean() < tolerance:
            break
        count = min(CHECK_EVERY, iterations - done)
        u, v = update(scaled, plan, u, v, count)
        done += count
    return u, v, done - 1


def _unread(
    scaled: Tensor, u: Tensor, v: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The potentials without a decision on the CPU."""
    ended = torch.zeros((), dtype=torch.bool, device=scaled.device)
    for done in range(1, iterations, CHECK_EVERY):
        plan = (scaled + u[:, None] + v).exp()
        if tolerance:
            ended = ended | ((plan.sum(1) - 1 / len(plan)).abs().mean() < tolerance)
        more = _logarithms(scaled, plan, u, v, min(CHECK_EVERY, iterations - done))
        u, v = (torch.where(ended, old, new) for old, new in zip((u, v), more, strict=True))
    return u, v


def log_plan(
    affinity: Tensor, epsilon: float, iterations: int = 50, tolerance: float = 0.0
) -> Tensor:
    """`[n, m]`, the logarithm of the entropic transport plan of the affinities.

    As in the original, potentials are at last averaged with those of one further half-step each,
    both from the same iteration: neither marginal is exact, and both are about as good.
    """
    scaled = affinity / epsilon
    u, v, _ = potentials(scaled, iterations, tolerance)
    u, v = (u + _rows(scaled, v)) / 2, (v + _rows(scaled.T, u)) / 2
    return scaled + u[:, None] + v


def klot(
    student: Tensor,
    teacher: Tensor,
    *,
    epsilon: float = 0.05,
    teacher_epsilon: float = 0.02,
    iterations: int = 50,
    tolerance: float = 0.0,
) -> Tensor:
    """Σ P* (log P* - log P), P the plan of the student's affinities, P* of the teacher's.

    The gradient to the student's is imposed, (P - P*) / epsilon: that of exact plans. The teacher
    gets none.
    """
    how = (iterations, tolerance)
    log_target = log_plan(teacher.detach(), teacher_epsilon, *how)
    return _KLOT.apply(student, log_target, epsilon, how)


class _KLOT(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, log_target: Tensor, epsilon: float, how: tuple[int, float]
    ) -> Tensor:
        found, target = log_plan(student, epsilon, *how), log_target.exp()
        ctx.save_for_backward((found.exp() - target) / epsilon)
        return (target * (log_target - found)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return grad * ctx.saved_tensors[0], None, None, None


def _widest(dtype: torch.dtype) -> float:
    """The potentials differ by no more than the affinities: a plan's entries by twice that."""
    return -math.log(torch.finfo(dtype).tiny) / 2


def _factors(
    scaled: Tensor, plan: Tensor, u: Tensor, v: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    n, m = plan.shape
    rows, columns = torch.ones_like(u), torch.ones_like(v)
    for _ in range(count):
        rows = 1 / (n * (plan @ columns))
        columns = 1 / (m * (plan.T @ rows))
    return u + rows.log(), v + columns.log()


def _logarithms(
    scaled: Tensor, plan: Tensor, u: Tensor, v: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    for _ in range(count):
        u = _rows(scaled, v)
        v = _rows(scaled.T, u)
    return u, v


def _rows(scaled: Tensor, columns: Tensor) -> Tensor:
    """The potential of the rows that makes their marginal exact."""
    return -math.log(len(scaled)) - (scaled + columns).logsumexp(1)
