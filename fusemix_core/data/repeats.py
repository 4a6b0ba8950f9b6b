"""Unites links that say the same, and counts what became of the rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fusemix_core.data.facts import Fact
from fusemix_core.data.numbers import all_differ
from fusemix_core.data.splits import connected_components


def first_of_equal(links: np.ndarray, told: np.ndarray, facts: Mapping[str, Fact]) -> np.ndarray:
    """int64 `[m]`: for each link the first that says the same.

    Two links say the same if they have the same items and facts and are told to be in the same
    split.

    Args:
        links: int64 `[m, K]`.
        told: int8 `[m]`, -1 where no split is told.
        facts: of the links; their trust is none of them.
    """
    for column in links.T:
        if all_differ(column, int(column.max(initial=-1)) + 1):
            return np.arange(len(links))
    columns = [*links.T, told]
    for fact in facts.values():
        columns += list(fact.values.reshape(len(fact), -1).T)
    label = np.zeros(len(links), np.int64)
    first = np.zeros(1, np.int64)
    for column in columns:
        values = np.unique(column, return_inverse=True)[1]
        joined = label * (values.max(initial=0) + 1) + values
        _, first, label = np.unique(joined, return_index=True, return_inverse=True)
    return first[label] if len(links) else np.zeros(0, np.int64)


def merged_groups(first: np.ndarray, group: np.ndarray) -> np.ndarray:
    """int64 `[m]`: groups such that links that say the same are in one, with all rows of theirs.

    Args:
        first: int64 `[m]`, as `first_of_equal` returns.
        group: int64 `[m]`, -1 if there is none.
    """
    return connected_components([first, group])


def most_trusted(first: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """float32 `[m]`: the greatest trust of the links that say the same."""
    best = np.zeros(len(trust), np.float32)
    np.maximum.at(best, first, trust)
    return best[first]
