"""Latents that exist already, as an encoder: an item is the id of a row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.headers import LATENTS
from fusemix_core.data.matrices import is_latents, read_ids, read_matrix
from fusemix_core.encoders.ready import VIEWS
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec

_LEAST = 8
"""Items that `sample_items` gives at least."""


class MatrixEncoder(Encoder):
    """Rows of a matrix `[n, d]`, or of an array `[n, T, d]` or `[n, H, W, d]`, by their ids.

    Args:
        spec: `weights` is the file, `options["array"]` the array or column in it.
        matrix: The rows, if they are in memory.

    Example:
        MatrixEncoder.of(latents, "image")
    """

    def __init__(self, spec: EncoderSpec, matrix: np.ndarray | None = None) -> None:
        self.spec = spec
        if matrix is None:
            file = Path(spec.weights)
            self.matrix = read_matrix(file, spec.options["array"])
            ids = read_ids(file, len(self.matrix))
        else:
            self.matrix, ids = matrix, [str(i) for i in range(len(matrix))]
        self.rows = {one: i for i, one in enumerate(ids)}

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    @classmethod
    def of(cls, latents: Any, modality: str) -> Self:
        """The encoder of a matrix in memory, whose ids are the numbers of its rows.

        Raises `DataError` if it isn't one.
        """
        matrix = latents.detach().cpu().float().numpy() if isinstance(latents, Tensor) else latents
        if not is_latents(matrix):
            raise DataError(
                f"The latents of {modality} are an array of {matrix.dtype} of shape "
                f"{tuple(matrix.shape)}.",
                LATENTS,
            )
        digest = hashlib.sha256(np.ascontiguousarray(matrix).tobytes()).hexdigest()
        spec = EncoderSpec(
            name=f"array-{digest[:16]}",
            modality=modality,
            target="fusemix_core.encoders.matrix:MatrixEncoder",
            summary="latents in memory",
            views=VIEWS.get(matrix.ndim, ("pooled",)),
            takes="id",
            dim=matrix.shape[-1],
            sha256=digest,
        )
        return cls(spec, matrix)

    def ids(self) -> Sequence[str]:
        """The ids of all rows, in order."""
        return list(self.rows)

    def collate(self, items: Sequence[str]) -> Tensor:
        """int64 `[n]`: the rows. Raises `DataError` for an id that is not there, and for a row
        that contains NaN or infinity."""
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes ids, not {type(item).__name__}")
            if item not in self.rows:
                raise DataError(f"{self.spec.name} has no latents for '{item}'")
            if not np.isfinite(self._float32(self.rows[item])).all():
                raise DataError(f"{self.spec.name} has NaN or infinity in the latents of '{item}'")
        return torch.tensor([self.rows[item] for item in items], dtype=torch.long)

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        rows = torch.from_numpy(self._float32(batch.numpy()))
        return rows.flatten(1, -2).mean(dim=1) if view == "pooled" and rows.ndim > 2 else rows

    def _float32(self, rows: Any) -> np.ndarray:
        """One row or several, as `encode` gives them."""
        with np.errstate(over="ignore"):  # `collate` reports what float32 can't hold
            return np.asarray(self.matrix[rows], np.float32)

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[str]:
        return cls(spec).ids()[: 2 * _LEAST]
