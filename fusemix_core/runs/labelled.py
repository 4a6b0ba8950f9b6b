"""Items of one modality with a class each, as zero-shot classification takes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.errors import DataError, short
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

    def labels(
        self, classes: Sequence[str] | Mapping[str, int], tell: Tell | None = None
    ) -> dict[int, int]:
        """item → index of its class.

        A label is the name of a class, whatever its case where only one is meant, or its number.

        Args:
            classes: The names, numbered from 0, or name → number.
            tell: Is called if labels are not names as they are written.

        Raises:
            DataError: A label is none of the classes, or an item has two.
        """
        names, labels = list(classes), {}
        found = {i: self.texts.describe(i) for i in np.unique(self.links[:, 1]).tolist()}
        index, note = match_labels(list(found.values()), classes)
        if note and tell is not None:
            tell(note)
        for item, label in self.links.tolist():
            name = found[label]
            if name not in index:
                path, row = self.texts.origin[label]
                near = difflib.get_close_matches(name, names, n=1)
                raise DataError(
                    f"the label '{short(name)}' is none of the {len(names)} classes.",
                    "".join(f"Did you mean '{short(one)}'?\n" for one in near)
                    + "Add it to --classes, or mend the row.",
                    path=path,
                    row=row,
                )
            if labels.setdefault(item, index[name]) != index[name]:
                raise DataError(
                    f"one item has two labels, '{names[labels[item]]}' and '{name}'.",
                    "Zero-shot classification needs one class per item.",
                )
        return labels


def match_labels(
    labels: Sequence[str], classes: Sequence[str] | Mapping[str, int]
) -> tuple[dict[str, int], str]:
    """(label → index of its class, a note or ""). Labels that are none of the classes are left out.

    Args:
        labels: All labels that occur.
        classes: The names, numbered from 0, or name → number.
    """
    names = list(classes)
    index = {name: i for i, name in enumerate(names)}
    if all(label in index for label in labels):
        return index, ""
    given = classes.values() if isinstance(classes, Mapping) else range(len(names))
    numbers = {number: i for i, number in enumerate(given)}
    read = {label: _number(label) for label in labels}
    index = {label: numbers[number] for label, number in read.items() if number in numbers}
    if len(index) == len(read):
        first = labels[0]
        name = short(names[index[first]])
        return index, f"Labels are read as numbers of classes: {first} is '{name}'."
    folded: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        folded.setdefault(_folded(name), []).append(i)
    changed = {}
    for label in labels:
        alike = folded.get(_folded(label), ())
        if label not in index and len(alike) == 1:
            changed[label] = alike[0]
    if not changed:
        return index, ""
    first = next(iter(changed))
    note = (
        f"{len(changed):,} labels are read as classes that are written otherwise: "
        f"'{short(first)}' is '{short(names[changed[first]])}'."
    )
    return index | changed, note


def _number(label: str) -> int | None:
    """The whole number that a label is, as a table of numbers may write it: 3 or 3.0."""
    whole = label.strip().removesuffix(".0")
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 10 else None


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


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
    are read as the modality `text`; `tell` gets the notes on the data. Raises `DataError` for an
    empty split."""
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
