"""Rows and items that are probably wrong, each with a plain reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import SPLITS, PairedDataset
from fusemix_core.data.original import (
    TableWriter,
    check_new_columns,
    original_columns,
    original_rows,
)
from fusemix_core.evaluation.mispaired import Fits
from fusemix_core.evaluation.similar import Similar

MISPAIRED, LEAK, DUPLICATE, OUTLIER = "mispaired", "leak", "duplicate", "outlier"
KINDS = (MISPAIRED, LEAK, DUPLICATE, OUTLIER)
"""The kinds of suspects, in the order of the table."""


@dataclass(frozen=True)
class Suspect:
    """A row to look at.

    Attributes:
        kind: one of `KINDS`.
        file, row: its place in the data.
        reason: a sentence or two.
        value: of `mispaired` the percentile among unpaired items; of `leak` and `duplicate` the
            similarity; of `outlier` the mean similarity to the nearest items.
        modality, item: which item, its path or text; of a mispaired row the first.
        other_file, other_row, other_item: what it is compared with: the near-duplicate, or the item
            that fits better.
        at: (modality, number in the dataset) of the items to show.
    """

    kind: str
    file: str
    row: int
    reason: str
    value: float
    modality: str
    item: str
    other_file: str = ""
    other_row: int | None = None
    other_item: str = ""
    at: tuple[tuple[str, int], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All but the numbers in the dataset."""
        return {name: value for name, value in vars(self).items() if name != "at"}


def mispaired(
    dataset: PairedDataset, found: Mapping[tuple[str, str], Fits], below: float
) -> list[Suspect]:
    """The rows whose items are below a percentile of unpaired items, the worst first.

    Args:
        found: two modalities → how their items fit in each row of the dataset.
        below: the percentile.
    """
    suspects: list[tuple[float, Suspect]] = []
    for (first, second), fit in found.items():
        for row in (fit.percentile < below).nonzero()[:, 0].tolist():
            ids = [int(dataset.links[row, dataset.modalities.index(m)]) for m in (first, second)]
            (rank, back), (count, back_count) = fit.ranks[row].tolist(), fit.among[row].tolist()
            percentile = float(fit.percentile[row])
            reason = (
                f"For its {first}, the {second} ranks {rank:,} of {count:,}; for its {second}, the "
                f"{first} ranks {back:,} of {back_count:,}. {100 - percentile:.0f}% of random "
                "pairs fit better."
            )
            better = int(fit.better[row, 0])
            other: dict[str, Any] = {}
            at = [(first, ids[0]), (second, ids[1])]
            if better >= 0:
                items = dataset.items[second]
                file, number = items.origin[better]
                other = {"other_file": file, "other_row": number}
                other["other_item"] = items.describe(better)
                at.append((second, better))
            one = Suspect(
                MISPAIRED,
                *dataset.origin[row],
                reason,
                round(percentile, 2),
                first,
                dataset.items[first].describe(ids[0]),
                at=tuple(at),
                **other,
            )
            suspects.append((float(fit.lead[row]), one))
    return [one for _, one in sorted(suspects, key=lambda pair: pair[0])]


def repeated(
    dataset: PairedDataset, modality: str, ids: np.ndarray, found: Similar, splits: bool
) -> list[Suspect]:
    """Near-duplicates of a modality, and with `splits` items that two splits share, or nearly.

    Texts of two splits are duplicates as any others: they may be labels, or usual phrases.

    Args:
        ids: int64, the items that `found` compared.
    """
    splits = splits and not dataset.items[modality].medium.language
    of = _splits_of(dataset, modality) if splits else None
    suspects = [] if of is None else list(_shared(dataset, modality, of))
    for (i, j), cosine in zip(found.pairs.tolist(), found.cosines.tolist(), strict=True):
        a, b = int(ids[i]), int(ids[j])
        across = of is not None and _across(of, a, b)
        if across and of is not None and (of[:, a].argmax() < of[:, b].argmax()):
            a, b = b, a  # the item that is held out comes first
        items = dataset.items[modality]
        file, row = items.origin[b]
        reason = f"Nearly the same {modality} as {file}, row {row} (similarity {cosine:.3f})"
        if across and of is not None:
            reason += f". This one is in {_named(of, a)}, the other in {_named(of, b)}"
        suspects.append(
            Suspect(
                LEAK if across else DUPLICATE,
                *items.origin[a],
                f"{reason}.",
                round(cosine, 4),
                modality,
                items.describe(a),
                file,
                row,
                items.describe(b),
                ((modality, a), (modality, b)),
            )
        )
    return sorted(suspects, key=lambda one: -one.value)


def outliers(
    dataset: PairedDataset, modality: str, ids: np.ndarray, found: Similar
) -> list[Suspect]:
    """Items of a modality that are unlike all others, the most unusual first."""
    items, usual = dataset.items[modality], float(np.nanmedian(found.nearness)) if len(ids) else 0.0
    suspects = []
    for i in found.outliers().tolist():
        item, near = int(ids[i]), float(found.nearness[i])
        suspects.append(
            Suspect(
                OUTLIER,
                *items.origin[item],
                f"Unlike any other {modality}: the mean similarity to the nearest ones is "
                f"{near:.2f}; usual is {usual:.2f}.",
                round(near, 4),
                modality,
                items.describe(item),
                at=((modality, item),),
            )
        )
    return suspects


def write_suspects(
    path: str | Path, suspects: Sequence[Suspect], config: DataConfig | None = None
) -> None:
    """Write the suspects as a CSV, one per row, with the columns that their rows have in the data.

    Args:
        config: the data; None leaves out their columns.
    """
    names = [field.name for field in fields(Suspect) if field.name != "at"]
    columns = original_columns(config) if config else []
    named = check_new_columns(columns, names)
    wanted = {(one.file, one.row) for one in suspects}
    cells: dict[tuple[str, int], Mapping[str, Any]] = {}
    for file, row, values in original_rows(config) if config and suspects else ():
        if (file, row) in wanted:
            cells[file, row] = values
    with TableWriter(path, [*named.values(), *columns]) as table:
        table.write_all(
            {**cells.get((one.file, one.row), {}), **_named_values(one, named)} for one in suspects
        )


def _named_values(one: Suspect, named: Mapping[str, str]) -> dict[str, Any]:
    return {named[name]: value for name, value in one.as_dict().items()}


def compared_ids(dataset: PairedDataset, modality: str) -> torch.Tensor:
    """Sorted int64 items of a modality that rows link."""
    ids = np.unique(dataset.links[:, dataset.modalities.index(modality)])
    return torch.from_numpy(ids[ids >= 0])


def _splits_of(dataset: PairedDataset, modality: str) -> np.ndarray:
    """bool `[3, n]`: which splits each item of a modality is in."""
    found = np.zeros((len(SPLITS), len(dataset.items[modality])), bool)
    for s, name in enumerate(SPLITS):
        ids = dataset.links[dataset.splits[name], dataset.modalities.index(modality)]
        found[s, ids[ids >= 0]] = True
    return found


def _across(of: np.ndarray, a: int, b: int) -> bool:
    """Whether two items are in different splits."""
    return bool(of[:, a].any() and of[:, b].any() and (of[:, a] != of[:, b]).any())


def _named(of: np.ndarray, item: int) -> str:
    return " and ".join(name for s, name in enumerate(SPLITS) if of[s, item])


def _shared(dataset: PairedDataset, modality: str, of: np.ndarray) -> Iterator[Suspect]:
    """Items that are in two splits as they are."""
    items, column = dataset.items[modality], dataset.modalities.index(modality)
    for item in np.flatnonzero(of.sum(axis=0) > 1).tolist():
        rows = {}
        for name in SPLITS:
            own = dataset.splits[name]
            own = own[dataset.links[own, column] == item]
            if len(own):
                rows[name] = dataset.origin[int(own[0])]
        (first, here), (second, there) = list(combinations(reversed(rows.items()), 2))[0]
        yield Suspect(
            LEAK,
            *here,
            f"The same {modality} as {there[0]}, row {there[1]}. This row is in {first}, the other "
            f"in {second}.",
            1.0,
            modality,
            items.describe(item),
            *there,
            items.describe(item),
            ((modality, item),),
        )
