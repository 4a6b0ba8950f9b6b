"""Embeddings in the forms in which clients ask for them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_serve.replies import Refused

TYPES = ("float", "base64", "int8", "uint8", "binary", "ubinary")


def shortened(rows: Tensor, dimensions: Any) -> Tensor:
    """The first dimensions of unit-norm rows `[n, d]`, at unit norm again; all if None.

    Raises:
        Refused: there aren't as many.
    """
    if dimensions is None:
        return rows
    if type(dimensions) is not int or not 1 <= dimensions <= rows.shape[1]:
        raise Refused(400, f"The model has 1 to {rows.shape[1]} dimensions.")
    return normalize(rows[:, :dimensions], dim=1)


def written(rows: Tensor, form: str) -> list[Any]:
    """Rows float32 `[n, d]` in a form of `TYPES`.

    `base64` is that of little-endian float32. `int8` is scaled so that the largest value of a row
    is 127, which keeps the cosines; `uint8` is the same plus 128. `binary` and `ubinary` have the
    signs, eight in a byte, as int8 and uint8.
    """
    values = np.ascontiguousarray(rows.numpy(), dtype="<f4")
    if form == "base64":
        return [base64.b64encode(row.tobytes()).decode() for row in values]
    if form in ("int8", "uint8"):
        largest = np.abs(values).max(axis=1, keepdims=True).clip(1e-12)
        whole = np.rint(values / largest * 127).astype(np.int16)
        return (whole + 128 * (form == "uint8")).tolist()
    if form in ("binary", "ubinary"):
        packed = np.packbits(values > 0, axis=1).astype(np.int16)
        return (packed - 128 * (form == "binary")).tolist()
    return values.tolist()


def mean_of(rows: Tensor, parts: list[int]) -> Tensor:
    """The mean of consecutive groups of rows, as many as `parts` say, at unit norm."""
    return normalize(torch.stack([group.mean(dim=0) for group in rows.split(parts)]), dim=1)
