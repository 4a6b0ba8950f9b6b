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
from fusemix_core.evaluation.multilabel import groups_of, label_table, labels_in, of_items
from fusemix_core.runs.notices import Tell
from fusemix_core.runs.reading import read_usable

_LABELS, _GROUP = "labels of items", "group of items"
"""The facts that labels and groups are read as."""


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
                raise unknown_label(name, names, *self.texts.origin[label])
            if labels.setdefault(item, index[name]) != index[name]:
                raise DataError(
                    f"one item has two labels, '{names[labels[item]]}' and '{name}'.",
                    "Zero-shot classification needs one class per item.",
                )
        return labels


def unknown_label(label: str, classes: Sequence[str], path: str, row: int) -> DataError:
    """The error for a label that is none of the classes."""
    near = difflib.get_close_matches(label, classes, n=1)
    return DataError(
        f"the label '{short(label)}' is none of the {len(classes)} classes.",
        "".join(f"Did you mean '{short(one)}'?\n" for one in near)
        + "Add it to --classes, or mend the row.",
        path=path,
        row=row,
    )


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
    numbered = {label: numbers[number] for label, number in read.items() if number in numbers}
    if len(numbered) == len(read):
        first = labels[0]
        name = short(names[numbered[first]])
        return numbered, f"Labels are read as numbers of classes: {first} is '{name}'."
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


@dataclass(frozen=True)
class ItemLabels:
    """Items and their classes.

    Attributes:
        dataset: The items, a row each.
        labels: By item, int64 `[items]` (-1: none), or bool `[items, C]` if it may have several.
        whole: What they were read from, with all of its rows.
        groups: int64 `[items]`, the group of each; None if no column says.
    """

    dataset: PairedDataset
    labels: np.ndarray
    whole: PairedDataset
    groups: np.ndarray | None = None


def read_classes(
    config: DataConfig,
    modality: str,
    text: str,
    takes: Mapping[str, str],
    label_column: str,
    separator: str,
    classes: Sequence[str] | Mapping[str, int],
    split: str = "all",
    seed: int = 0,
    tell: Tell | None = None,
) -> ItemLabels:
    """The items of a split, each with one class or, with a separator, with any number of them.

    Arguments and errors are those of `read_labelled`, `Labelled.labels` and `read_several`.
    """
    how = split, seed, tell
    if separator:
        columns = label_column, separator
        return read_several(config, modality, takes[modality], *columns, classes, *how)
    found = read_labelled(config, modality, text, takes, label_column, *how)
    labels = np.full(len(found.dataset.items[modality]), -1)
    for item, label in found.labels(classes, tell).items():
        labels[item] = label
    return ItemLabels(found.dataset, labels, found.whole)


def read_several(
    config: DataConfig,
    modality: str,
    takes: str,
    label_column: str,
    separator: str,
    classes: Sequence[str] | Mapping[str, int],
    split: str = "all",
    seed: int = 0,
    tell: Tell | None = None,
) -> ItemLabels:
    """The items of a split of the data (`all`: every row), each with any number of the classes.

    An empty cell means none of them. An item of several rows has the classes of all of them. Groups
    are by the column `config.group_by`.

    Raises:
        DataError: For a label that is none of the classes, or an empty split.
    """
    columns = {modality: config.columns[modality]} if modality in config.columns else {}
    facts = {_LABELS: f"{label_column}:labels"}
    if config.group_by:
        facts[_GROUP] = f"{config.group_by}:text"
    config = replace(config, columns=columns, facts=facts)
    dataset = read_usable(config, {modality: takes}, seed, tell=tell, least=1)
    rows = np.arange(len(dataset)) if split == "all" else dataset.splits[split]
    if not len(rows):
        raise DataError(f"The data has no {split} split.", "Use --split all.")
    cells, items = dataset.facts[_LABELS], dataset.links[rows, 0]
    found = [labels_in(cell, separator) for cell in cells.names]
    distinct = list(dict.fromkeys(label for cell in found for label in cell))
    index, note = match_labels(distinct, classes) if distinct else ({}, "")
    if note and tell is not None:
        tell(note)
    for number, cell in enumerate(found):
        for label in cell:
            if label not in index:
                at = np.flatnonzero(cells.values == number)[0]
                raise unknown_label(label, list(classes), *dataset.origin[at])
    table = label_table(cells.names, separator, index, len(classes))
    count = len(dataset.items[modality])
    groups = None
    if _GROUP in dataset.facts:
        values = dataset.facts[_GROUP].values[rows]
        groups = groups_of(np.stack([items, values], axis=1), count)
    origin = dataset.origin.select(rows)
    splits = {"all": np.arange(len(rows))}
    one = replace(dataset, links=items[:, None], splits=splits, origin=origin, facts={})
    return ItemLabels(one, of_items(table, cells.values[rows], items, count), dataset, groups)


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
