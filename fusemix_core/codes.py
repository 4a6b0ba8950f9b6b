"""Embeddings in fewer bits: float16, int8, or one bit for each dimension."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import UnknownNameError

CodeType = Literal["float32", "float16", "int8", "binary"]
"""How a number of an embedding is stored."""

DTYPES: tuple[CodeType, ...] = get_args(CodeType)

_WIDEST = 5.0
"""int8 spans so many standard deviations of a spread row's numbers, to either side."""


def coded(rows: Tensor, dtype: CodeType) -> Tensor:
    """Unit-norm rows as codes.

    int8 and binary are taken of the rows after `spread`, whose numbers are all of one size. So one
    scale suits every dimension, and every bit says as much as another. Codes are compared with
    codes: int8 by inner product, which is the cosine times `int8_scale(d)` squared; binary by
    Hamming distance.

    Args:
        rows: unit-norm `[n, d]`.
        dtype: `float32`, `float16`, `int8` or `binary`.

    Returns:
        `[n, d]` of that type; of `binary`, uint8 `[n, ceil(d / 8)]`, the first dimension in the
        highest bit, as `numpy.packbits` has it.

    Raises:
        UnknownNameError: there is no such type.
    """
    if dtype not in DTYPES:
        raise UnknownNameError.of("type of codes", dtype, DTYPES)
    if dtype in ("float32", "float16"):
        return rows.to(getattr(torch, dtype))
    turned = rows.float() @ spread(rows.shape[1])
    if dtype == "int8":
        return (turned * int8_scale(rows.shape[1])).round_().clamp_(-127, 127).to(torch.int8)
    return torch.from_numpy(np.packbits((turned > 0).numpy(), axis=1))


def decoded(codes: Tensor, dim: int) -> Tensor:
    """The unit-norm rows, float32 `[n, dim]`, that codes stand for: the inverse of `coded`, as far
    as there is one."""
    if codes.dtype == torch.uint8:
        bits = np.unpackbits(codes.numpy(), axis=1, count=dim)
        turned = torch.from_numpy(bits).float().mul_(2).sub_(1)
    elif codes.dtype == torch.int8:
        turned = codes.float()
    else:
        return normalize(codes.float(), dim=1)
    return normalize(turned @ spread(dim).T, dim=1)


def int8_scale(dim: int) -> float:
    """What a number of a spread unit-norm row is multiplied by for int8."""
    return 127 * math.sqrt(dim) / _WIDEST


@lru_cache(maxsize=4)
def spread(dim: int) -> Tensor:
    """An orthogonal matrix, float32 `[dim, dim]`, that makes all numbers of a row alike in size.

    Two orthonormal cosine transforms (DCT-II), each after changes of sign. It is a formula, the
    same on every machine and in every version: codes that are stored must mean the same tomorrow.
    """
    place = np.arange(dim)
    cosines = np.cos(np.pi * (2 * place[:, None] + 1) * place / (2 * dim))
    cosines *= math.sqrt(2 / dim)
    cosines[:, 0] /= math.sqrt(2)
    first, second = _signs(dim, 1), _signs(dim, 2)
    return torch.from_numpy((first[:, None] * cosines) @ (second[:, None] * cosines)).float()


def _signs(dim: int, start: int) -> np.ndarray:
    """±1 `[dim]`, by the top bit of a linear congruential generator (Park and Miller, 1988)."""
    state, signs = start, np.empty(dim)
    for i in range(dim + 16):
        state = 48_271 * state % 2_147_483_647
        if i >= 16:
            signs[i - 16] = 1 if state >> 30 else -1
    return signs
