"""Items of one modality with a class each, as zero-shot classification takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.errors import DataError
from fusemix_core.runs.notices import Tell
from fusemix_core.runs.reading import read_usable


@dataclass(frozen=True)
class Labelled:
    """dataset: the items, a row each; texts: the labels; links: int64 `[m, 2]` between them; whole:
    what they were read from, with all of its rows."""

    dataset: PairedDataset
    texts: Items
    links: np.ndarray
    whole: PairedDataset

    def names(self) -> list[str]:
        """The labels that occur, in alphabetical order."""
        return sorted(self.texts.describe(int(i)) for i in np.unique(self.links[:, 1]))

    def labels(self, classes: Sequence[str]) -> dict[int, int]:
        """item → index of its class. Raises `DataError` for a label that is none of the classes, or
        an item with two."""
        index = {name: i for i, name in enumerate(classes)}
        labels: dict[int, int] = {}
        for item, label in self.links.tolist():
            name = self.texts.describe(label)
            if name not in index:
                path, row = self.texts.origin[label]
                raise DataError(
                    f"the label '{name}' is none of the {len(classes)} classes.",
                    "Add it to --classes, or mend the row.",
                    path=path,
                    row=row,
                )
            if labels.setdefault(item, index[name]) != index[name]:
                raise DataError(
                    f"one item has two labels, '{classes[labels[item]]}' and '{name}'.",
                    "Zero-shot classification needs one class an item.",
                )
        return labels


def read_labelled(
    config: DataConfig,
    modality: str,
    text: str,
    takes: Mapping[str, str],
    label_column: str = "label",
    split: str = "all",
    seed: int = 0,
    tell: Tell | None = None,
) -> Labelled:
    """The items of a split of the data (`all`: every row) and the labels in `label_column`, which
    are read as the modality `text`; `tell` is told of the data. Raises `DataError` for an empty
    split."""
    columns = {modality: config.columns[modality]} if modality in config.columns else {}
    config = replace(config, columns={**columns, text: label_column})
    dataset = read_usable(config, takes, seed, tell=tell)
    rows = slice(None) if split == "all" else dataset.splits[split]
    links = dataset.links[rows]
    if not len(links):
        raise DataError(f"The data has no {split} split.", "Use --split all.")
    labelled = replace(
        dataset,
        items={modality: dataset.items[modality]},
        links=links[:, :1],
        splits={"all": np.arange(len(links))},
        origin=dataset.origin.select(np.arange(len(dataset.links))[rows]),
        least=1,
        facts={},
    )
    return Labelled(labelled, dataset.items[text], links, dataset)
