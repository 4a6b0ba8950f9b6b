"""Which items a fused model was trained on: short keys that it keeps, and what they say of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import PairedLatents


def short_keys(items: Items, index: np.ndarray | None = None) -> Tensor:
    """int32 `[n]`: 32 bits of the content key of each item, or of those in `index`."""
    keys = items.keys[:, 0] if index is None else items.keys[index, 0]
    return torch.from_numpy((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32))


def add_seen(model: FusedModel, items: Mapping[str, Items], train: PairedLatents) -> None:
    """Add the keys of the items of the training rows, and of those without partner, to a model."""
    for modality in train.modalities:
        ids = [train.linked(modality), train.unpaired.get(modality, torch.empty(0).long())]
        keys = short_keys(items[modality], torch.cat(ids).numpy())
        old = model.seen.get(modality, keys[:0])
        model.seen[modality] = torch.cat([old, keys]).unique()


@dataclass(frozen=True)
class TrainedOn:
    """How much of some rows a model was trained on.

    Attributes:
        pairs: Rows all of whose items it was trained on.
        of: All rows.
        items: modality → (how many of its items it was trained on, how many there are).
        media: The modalities that aren't texts.
    """

    pairs: int
    of: int
    items: dict[str, tuple[int, int]]
    media: tuple[str, ...] = ()

    @classmethod
    def count(
        cls, model: FusedModel, dataset: PairedDataset, rows: np.ndarray | slice
    ) -> TrainedOn | None:
        """That of rows of a dataset; None if the model has no keys, as it was saved without."""
        known = [m for m in dataset.modalities if m in model.seen]
        links = dataset.links[rows]
        if not known:
            return None
        fits, found = np.ones(len(links), bool), {}
        some = np.zeros(len(links), bool)
        for modality in known:
            seen = np.isin(short_keys(dataset.items[modality]).numpy(), model.seen[modality])
            column = links[:, dataset.modalities.index(modality)]
            ids = np.unique(column[column >= 0])
            found[modality] = (int(seen[ids].sum()), len(ids))
            fits &= (column < 0) | seen[column]
            some |= column >= 0
        media = [m for m in known if not dataset.items[m].medium.inline]
        return cls(int((fits & some).sum()), len(links), found, tuple(media))

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        items = {m: {"trained_on": seen, "of": count} for m, (seen, count) in self.items.items()}
        return {"pairs": self.pairs, "of": self.of, "items": items}

    def warnings(self) -> list[str]:
        """A warning if the model was trained on any of it."""
        what = "pairs" if len(self.items) > 1 else "items"
        if self.pairs:
            return [
                f"{self.pairs:,} of {self.of:,} {what} were trained on: the model does better on "
                "these than on new ones."
            ]
        return [
            f"{seen:,} of {count:,} {modality} items were trained on, in other pairs."
            for modality, (seen, count) in self.items.items()
            if seen and modality in self.media
        ]
