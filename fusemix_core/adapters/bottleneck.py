"""An inverted bottleneck and its residual path, trained at the speed of its products."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout as torch_dropout
from torch.nn.functional import gelu, linear

from fusemix_core.numerics import once_differentiable

_CHUNK = 1 << 20
"""Hidden values that are worked on at once between two products: they stay in the cache."""

_DROPPED = 1e4
"""Taken off a hidden value before the GELU, this leaves exactly 0 of it, and of its derivative."""


def bottleneck(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    residual: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """residual + dropout(gelu(x w1ᵀ + b1)) w2ᵀ + b2, for x and residual `[n, d]`, with exact GELU.

    On the CPU, training takes a form of its own: there torch spends more on drawing the dropout and
    on passes over memory than a small machine can spare. It draws from one seed that it takes of
    torch's generator. Its first derivatives only are defined. Under autocast, and where it is
    compiled, it is torch's form.
    """
    others = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if x.device.type == "cpu" and torch.is_grad_enabled() and not others:
        return _Bottleneck.apply(x, w1, b1, w2, b2, residual, dropout)
    return residual + linear(torch_dropout(gelu(linear(x, w1, b1)), dropout), w2, b2)


class _Bottleneck(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        residual: Tensor,
        dropout: float,
    ) -> Tensor:
        hidden = x @ w1.T  # [n, h]
        drop = _Drop(dropout) if dropout else None
        active = torch.empty_like(hidden)
        for part in _parts(hidden):
            rows = hidden[part].add_(b1)
            if drop is not None:
                drop(rows)
            torch.ops.aten.gelu.out(rows, out=active[part])
        ctx.scale = 1 / (1 - dropout)
        ctx.save_for_backward(x, w1, w2, hidden, active)
        return (residual + b2).addmm_(active, w2.T, alpha=ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, w1, w2, hidden, active = ctx.saved_tensors
        grad_hidden = grad @ w2
        grad_b1 = w1.new_zeros(len(w1))
        for part in _parts(hidden):
            rows = grad_hidden[part]
            torch.ops.aten.gelu_backward.grad_input(rows, hidden[part], grad_input=rows)
            grad_b1 += rows.sum(0)
        return (
            _scaled(grad_hidden, w1, ctx.scale) if ctx.needs_input_grad[0] else None,
            _scaled(grad_hidden.T, x, ctx.scale),
            grad_b1.mul_(ctx.scale),
            _scaled(grad.T, active, ctx.scale),
            grad.sum(0),
            grad,
            None,
        )


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b, without a pass of its own for the scale."""
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)


class _Drop:
    """Drops hidden values in place, each with the chance `dropout`.

    One byte is drawn for a value. What 1/256 is too coarse for is drawn once a row, as the chance
    that all values of the row are dropped by a byte that is one higher.
    """

    def __init__(self, dropout: float) -> None:
        seed = int(torch.randint(2**63 - 1, (1,)))
        self.bits = np.random.SFC64(seed)
        self.rows = np.random.Generator(self.bits)
        self.whole, self.part = divmod(dropout * 256, 1)

    def __call__(self, rows: Tensor) -> None:
        count = rows.numel()
        drawn = self.bits.random_raw(-(-count // 8)).view(np.uint8)[:count].reshape(rows.shape)
        thresholds = self.whole + (self.rows.random((len(rows), 1)) < self.part)
        dropped = np.less(drawn, np.minimum(thresholds, 255).astype(np.uint8))
        # As bytes: torch's own way from bool to float is four times slower.
        marks = torch.from_numpy(dropped.view(np.uint8)).to(rows.dtype)
        rows.sub_(marks, alpha=_DROPPED)


def _parts(hidden: Tensor) -> list[slice]:
    step = max(_CHUNK // hidden.shape[1], 1)
    return [slice(at, at + step) for at in range(0, len(hidden), step)]
