"""Choosing the pairs to fit on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import Part
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.disk import write_atomically
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import FitContext, PairedLatents
from fusemix_core.registry import registry
from fusemix_core.runs.reporter import Reporter

UNIFORM = Part("uniform")


def choose(
    part: Part | None, pairs: PairedLatents, k: int, context: FitContext, reporter: Reporter
) -> Tensor:
    """The rows of `pairs` that a selector (None: `uniform`) chooses, int64, in the order taken.

    If it gives fewer than k the reporter is told why. Raises `ContractError` for anything else
    than different rows.
    """
    part = part or UNIFORM
    selector = registry.build("selector", part)
    rows = selector.select(pairs, k, context)
    wanted = f"up to {k} different rows of {len(pairs)}, int64"
    right = isinstance(rows, Tensor) and rows.dtype == torch.int64 and rows.ndim == 1
    if not right or len(rows) > k or len(rows.unique()) < len(rows):
        raise ContractError(f"The selector '{part.name}'", wanted, _describe(rows))
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(pairs):
        raise ContractError(f"The selector '{part.name}'", wanted, "rows beyond these")
    if len(rows) < k:
        if not selector.fewer:
            raise ContractError(f"The selector '{part.name}'", wanted, f"{len(rows)}")
        reporter.note(f"only {len(rows):,} of {k:,} pairs were chosen: {selector.fewer}.")
    return rows.cpu()


def _describe(rows: Any) -> str:
    if not isinstance(rows, Tensor):
        return type(rows).__name__
    return f"{len(rows.unique())} different ones in {list(rows.shape)}, {rows.dtype}"


def write_chosen(path: Path, dataset: PairedDataset, rows: np.ndarray) -> None:
    """Write where rows of the dataset were read, one JSON object a line: path, row."""
    places = (dataset.origin[i] for i in rows.tolist())
    lines = (json.dumps({"path": p, "row": r}, ensure_ascii=False) + "\n" for p, r in places)
    write_atomically(path, (line.encode("utf-8", "surrogateescape") for line in lines))
