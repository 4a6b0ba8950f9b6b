"""Pairs that belong together, and pairs made of them that don't: the rows of `--task match`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError

MATCH = "match"
"""The task by its name on the command line."""
CLASSES = ("mismatch", "match")
PRODUCTS = "products"
"""The fuser for it: no sum of latents says whether two items belong together."""


def matched(
    dataset: PairedDataset, groups: np.ndarray, seed: int
) -> tuple[PairedDataset, np.ndarray]:
    """The rows with two items or more as matches, and as many mismatches.

    A mismatch is a row with one item exchanged for that of another group in the same split. Equal
    items count as one, so a mismatch may be none if the data repeat what they say in other words.

    Args:
        dataset: pairs.
        groups: int64 `[m]`, by row.
        seed: of the exchanges.

    Returns:
        (the dataset, whose fact `target` is `match` or `mismatch`; int64, the groups of its rows).

    Raises:
        DataError: there are too few pairs.
    """
    draw = np.random.default_rng(seed)
    count, splits, links, places = len(dataset), {}, [], []
    for name, rows in dataset.splits.items():
        rows = rows[(dataset.links[rows] >= 0).sum(axis=1) > 1]
        made, of = _exchanged(dataset.links, rows, groups, draw)
        start = count + sum(map(len, links))
        splits[name] = np.concatenate([rows, start + np.arange(len(made))])
        links.append(made)
        places.append(of)
    if not sum(map(len, links)):
        raise DataError(
            "No mismatches can be made: there are too few pairs of different groups.",
            "Give more rows with two items each, or group by another column.",
        )
    added = np.concatenate(places)
    every = np.concatenate([np.arange(count), added])
    values = np.repeat(np.array([1, 0], np.int64), [count, len(added)])
    facts = {name: fact.select(every) for name, fact in dataset.facts.items()}
    facts["target"] = Fact("class", values, CLASSES)
    return (
        replace(
            dataset,
            links=np.concatenate([dataset.links, *links]),
            splits=splits,
            origin=dataset.origin.select(every),
            facts=facts,
        ),
        groups[every],
    )


def check_match(modalities: int, targets: tuple[str, ...], folds: int) -> None:
    """Raise `ConfigError` unless pairs can be matched."""
    if targets:
        raise ConfigError(
            "The task match makes its own target: which rows are pairs.",
            "Leave out --target; to learn from a column that says so: --target COLUMN "
            "--fuser products",
        )
    if modalities < 2:
        raise ConfigError("The task match needs two modalities or more.", "Add an encoder: -e …")
    if folds:
        raise ConfigError(
            "The task match is measured on the test split, not by folds: a mismatch has items of "
            "two rows.",
            "Leave out --folds.",
        )


def _exchanged(
    links: np.ndarray, rows: np.ndarray, groups: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(links of mismatches int64 `[k, K]`; the rows that they were made of)."""
    made, of = links[rows].copy(), rows
    kept = np.zeros(len(rows), bool)
    column = draw.integers(0, links.shape[1], len(rows))
    for _ in range(8):  # until each has an item of another group, or nearly
        left = np.flatnonzero(~kept)
        if not len(left):
            break
        other = rows[draw.integers(0, len(rows), len(left))]
        item = links[other, column[left]]
        fits = (groups[other] != groups[rows[left]]) & (item >= 0)
        fits &= (links[rows[left], column[left]] >= 0) & (item != links[rows[left], column[left]])
        made[left[fits], column[left[fits]]] = item[fits]
        kept[left[fits]] = True
        column[left[~fits]] = draw.integers(0, links.shape[1], int((~fits).sum()))
    return made[kept], of[kept]
