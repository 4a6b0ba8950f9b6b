"""The leaks of a dataset: columns of its tables that give the target away, rows in two splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.leaks import leaks
from fusemix_core.errors import DataError

LOOKED_AT = 20_000
"""Training rows in which leaks are looked for; of more, so many at equal distances."""
_WIDE = 5
"""Rows of fewer cells are often equal by chance."""
_SHARE = 0.01


def find_leaks(
    dataset: PairedDataset,
    target: str,
    column: str = "",
    groups: np.ndarray | None = None,
) -> list[str]:
    """A sentence for each suspicion, with its remedy; see `data.leaks.leaks`.

    Args:
        dataset: Whose training rows are looked at.
        target: The fact to predict.
        column: The column that it is read from, whose words may be in the name of another.
        groups: int64 `[m]` of all rows, -1 without one. A category says nothing of a row by the
            rows of its own group.

    Example:
        for sentence in find_leaks(plan.dataset, "target", "price"):
            print(sentence)
    """
    rows = dataset.splits["train"]
    if len(rows) > LOOKED_AT:
        rows = rows[np.linspace(0, len(rows) - 1, LOOKED_AT).astype(np.int64)]
    fact = dataset.facts[target].select(rows)
    found = []
    for k, (modality, items) in enumerate(dataset.items.items()):
        if not (items.medium.joined and items.medium.inline):
            continue
        cells = _cells(dataset, modality, dataset.links[rows, k])
        own = None if groups is None else groups[rows]
        found += leaks(cells, fact, own, name=column, modality=modality)
        found += _repeated(dataset, k, modality, cells)
    return found


def _cells(
    dataset: PairedDataset, modality: str, ids: np.ndarray
) -> list[Mapping[str, Any] | None]:
    """The cells of each row, None without a table."""
    known: dict[int, Mapping[str, Any] | None] = {-1: None}
    for i in np.unique(ids[ids >= 0]).tolist():
        try:
            value = dataset.items[modality].load(i)
        except DataError:  # counted and reported when it is encoded
            value = None
        known[i] = value if isinstance(value, Mapping) else None
    return [known[i] for i in ids.tolist()]


def _repeated(
    dataset: PairedDataset, k: int, modality: str, cells: list[Mapping[str, Any] | None]
) -> list[str]:
    """A sentence for each split that has many rows with the cells of a training row."""
    widths = [len(one) for one in cells if one is not None]
    if not widths or np.median(widths) < _WIDE:
        return []
    train = dataset.links[dataset.splits["train"], k]
    sentences = []
    for split in ("validation", "test"):
        ids = dataset.links[dataset.splits[split], k]
        ids = ids[ids >= 0]
        count = int(np.isin(ids, train).sum())
        if count > _SHARE * len(ids):
            sentences.append(
                f"{count:,} of {len(ids):,} {split} rows have the same {modality} as a training "
                "row. If they are the same cases, the measurements are too good: name what "
                "belongs together (--group-by COLUMN), or let fusemix draw the splits."
            )
    return sentences
