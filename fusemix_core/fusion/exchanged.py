"""How much a measure falls if the cells of a column of a table are exchanged among rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.candidates import scores_of
from fusemix_core.fusion.parts import Part as Rows
from fusemix_core.fusion.parts import measures
from fusemix_core.fusion.study import Fitted, Study
from fusemix_core.padded import Padded
from fusemix_core.paired import PairedLatents, in_memory

DRAWS = 5
MOST = 60
"""Columns of all tables; with more, nothing is measured."""
_RESAMPLES = 200
_BEFORE = "as it is"

_CELLS = 1_000_000
"""About as many cells are encoded for a draw of every column."""
_FEWEST = 200
"""Test rows at least, if there are so many."""

Cells = Mapping[str, Any]
"""An item of a table, column → value."""
Encode = Callable[[str, Sequence[Cells]], Tensor | Padded]
"""A table's name, items → latents `[n, d]`, or tokens."""


@dataclass(frozen=True)
class Fall:
    """The fall of the primary metric if a column is exchanged; above 0, the column helps.

    Attributes:
        modality: the table.
        column: its column.
        value: the mean over the draws.
        interval: its 95% interval over resampled rows; None if there is none.
    """

    modality: str
    column: str
    value: float
    interval: list[float] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {}


def falls(
    study: Study,
    tables: Mapping[str, Mapping[int, Cells]],
    encode: Encode,
    seed: int = 0,
) -> list[Fall]:
    """The fall for each column of the tables, on test rows, the largest first: permutation
    importance (Breiman 2001) with the fitted fuser.

    Args:
        study: whose chosen fuser is measured.
        tables: modality → the items that test rows link, by number.
        encode: encodes items.
        seed: of the draws.

    Returns:
        None of them if the tables have more than 60 columns.
    """
    columns = {m: sorted(set().union(*each.values())) for m, each in tables.items()}
    count = sum(map(len, columns.values()))
    if not 0 < count <= MOST:
        return []
    most = max(_FEWEST, _CELLS // count**2) // len(study.folds)
    folds = [(one, _some(one, most, seed)) for one in study.folds]
    found = [
        _fall(study.chosen, folds, m, name, tables[m], encode, seed)
        for m, names in columns.items()
        for name in names
    ]
    return sorted(found, key=lambda one: -one.value)


def _some(one: Fitted, most: int, seed: int) -> Labelled:
    """Test rows, not more than so many."""
    count = len(one.test)
    if count <= most:
        return one.test
    drawn = np.random.default_rng(seed).choice(count, most, replace=False)
    return one.test.select(torch.from_numpy(np.sort(drawn)))


def _fall(
    chosen: str,
    folds: Sequence[tuple[Fitted, Labelled]],
    modality: str,
    column: str,
    items: Mapping[int, Cells],
    encode: Encode,
    seed: int,
) -> Fall:
    parts = []
    for number, (one, rows) in enumerate(folds):
        fuser, nothing = one.candidates[chosen].fitted.fuser, one.task.baseline(one.train.targets)
        draw = np.random.default_rng([seed, number])
        scores = {_BEFORE: scores_of(fuser, rows, nothing)}
        for k in range(DRAWS):
            other = exchanged(rows, modality, column, items, encode, draw)
            scores[str(k)] = scores_of(fuser, other, nothing)
        groups = rows.groups.numpy()
        parts.append(Rows(one.task, rows.targets, groups, scores, np.arange(len(rows))))
    found = measures(parts, resamples=_RESAMPLES, seed=seed)

    def fallen(values: np.ndarray) -> np.ndarray:
        return found.sign * (values[..., 0] - values[..., 1:].mean(axis=-1))

    spread = None if found.drawn is None else interval(fallen(found.drawn))
    return Fall(modality, column, float(fallen(found.values)), spread)


def exchanged(
    rows: Labelled,
    modality: str,
    column: str,
    items: Mapping[int, Cells],
    encode: Encode,
    draw: np.random.Generator,
) -> Labelled:
    """The rows, in which those that have a table have the cells of one of its columns in another
    order. A cell that is empty goes to another row, too."""
    place = rows.modalities.index(modality)
    links = rows.pairs.links.clone()
    there = (links[:, place] >= 0).nonzero()[:, 0]
    if not len(there):
        return rows
    cells = [dict(items[i]) for i in links[there, place].tolist()]
    values = [one.pop(column, None) for one in cells]
    for one, source in zip(cells, draw.permutation(len(cells)).tolist(), strict=True):
        if values[source] is not None:
            one[column] = values[source]
    links[there, place] = torch.arange(len(there))
    tables = {**rows.pairs.tables, modality: in_memory(encode(modality, cells))}
    return Labelled(PairedLatents(tables, links), rows.targets, rows.groups)
