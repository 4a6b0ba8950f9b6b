"""Splits by seeded fraction in which nothing that belongs together straddles two sides.

What belongs together: rows that share a medium (all captions of an image), rows with the same
value of the group column, and rows that share a text. The last does not hold where texts are
labels: in a set of 320 sounds and 10 class names it would put whole classes on one side. So texts
bind rows unless more than half of the rows share a text with a row of another item of the same
medium (the texts are labels; a picture and a sound of one text are not), or texts would chain more
than half of all rows into one component. Where every modality is read as text, `text` is the one
that may be labels and the others count as media.

Which side a component goes to is told by the least key of its items and the seed, so neither the
order of the rows nor their paths matter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from fusemix_core.data.dataset import SPLITS
from fusemix_core.data.numbers import all_differ, compact, members
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from fusemix_core.data.items import Items

FEWEST = 3
"""With fewer components than this there is nothing to split."""
FEWEST_ROWS = 10
"""With fewer rows than this it is not a fault if most belong together: a first try, or a test."""


@dataclass(frozen=True)
class Fractions:
    """Shares of the rows that are set aside."""

    validation: float
    test: float

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise DataError(
                f"The split fractions {self.validation:g} (validation) and {self.test:g} (test) "
                "leave nothing to train on.",
                "Both are shares of the rows, 0 or more, and add up to less than 1.",
            )


def assign(
    links: np.ndarray,
    items: Mapping[str, Items],
    told: np.ndarray,
    groups: np.ndarray | None,
    fractions: Fractions,
    seed: int,
    by_file: Collection[str] = (),
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the rows of each split, warnings).

    links: int64 `[m, K]`, in the order of `items`. told: int8 `[m]`, 0, 1, 2 if the data say
    train, validation or test, else -1. groups: int64 `[m]` or None. A part that is neither told nor
    in `by_file` is drawn by its fraction from the rows that are not told or told to be train.
    """
    parts = {name: np.flatnonzero(told == code) for code, name in enumerate(SPLITS)}
    given = [name for name in SPLITS[1:] if len(parts[name]) or name in by_file]
    shares = {n: 0.0 if n in given else getattr(fractions, n) for n in SPLITS[1:]}
    pool = np.flatnonzero(told <= 0)
    parts["train"] = pool
    warnings: list[str] = []
    if len(pool) and any(shares.values()):
        some = pool if len(pool) < len(links) else slice(None)
        inner = None if groups is None else groups[some]
        drawn, warnings = _draw(links[some], items, inner, Fractions(**shares), seed)
        parts |= {name: pool[drawn[name]] for name in SPLITS if name not in given}
        if (told >= 0).any():
            warnings += [
                f"No {name} split is given: {share:.0%} of the training rows are set aside for it."
                for name, share in shares.items()
                if share
            ]
    return parts, warnings + _leaks(links, items, parts, given)


def _draw(
    links: np.ndarray,
    items: Mapping[str, Items],
    groups: np.ndarray | None,
    fractions: Fractions,
    seed: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(rows of each split by seeded fraction, warnings)."""
    component, binding, warning = _bind_items(links, items, groups)
    least = _least_keys(links, list(items.values()), binding)
    warnings = [warning] if warning else []
    if component.max() + 1 < FEWEST:
        warnings.append("There are too few items to split: all rows are for training.")
    return split_rows(component, least, fractions, seed), warnings


def _bind_items(
    links: np.ndarray, items: Mapping[str, Items], groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """`bind`, by the modalities whose items bind rows: equal rows of a table are not one thing."""
    able = np.array([k for k, one in enumerate(items.values()) if not one.medium.joined], np.int64)
    if not len(able):
        alone = np.arange(len(links))
        component = alone if groups is None else connected_components([groups])
        return component, np.arange(links.shape[1]), ""
    inline = [one.medium.inline for one in items.values() if not one.medium.joined]
    names = [list(items)[k] for k in able]
    component, binding, warning = bind(links[:, able], inline, names, groups)
    return component, able[binding], warning


def connected_components(columns: Sequence[np.ndarray]) -> np.ndarray:
    """int64 `[m]`: the component of each row, numbered from 0.

    columns: int64 `[m]` each; rows with the same value (≥ 0) in a column are connected.
    """
    rows = len(columns[0])
    label = np.arange(rows)
    found = []
    for column in columns:
        if not all_differ(column, int(column.max(initial=-1)) + 1):
            present = np.flatnonzero(column >= 0)
            found.append((present, *compact(column[present])))
    if not found:
        return label
    while True:
        before = label.copy()
        for present, ids, count in found:
            least = np.full(count, rows)
            np.minimum.at(least, ids, label[present])
            label[present] = np.minimum(label[present], least[ids])
        np.minimum.at(label, before, label.copy())  # hook a row's old root to its new one
        while (label[label] != label).any():
            label = label[label]
        if (label == before).all():
            return compact(label)[0]


def bind(
    links: np.ndarray, reads_text: Sequence[bool], names: Sequence[str], groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Which rows belong together.

    links: int64 `[m, K]`; reads_text, names: of each modality; groups: int64 `[m]` or None.
    Returns (component int64 `[m]`, columns of `links` that bind, a warning or "").
    """
    is_text = np.array(reads_text, bool)
    if is_text.all():
        is_text = np.array([name == "text" for name in names])
    if is_text.all():
        is_text[:] = False
    always = [links[:, k] for k in np.flatnonzero(~is_text)]
    always += [groups] if groups is not None else []
    media = connected_components(always)
    texts = [links[:, k] for k in np.flatnonzero(is_text)]
    shared = np.zeros(len(links), bool)
    for column in texts:
        for medium in links[:, ~is_text].T:
            shared |= _shared(np.where(medium >= 0, column, -1), media)
    if texts and shared.mean() <= 0.5:
        both = connected_components(always + texts)
        if np.bincount(both).max() <= len(both) / 2 or np.bincount(media).max() > len(both) / 2:
            return both, np.arange(links.shape[1]), ""
        why = "chains of shared texts would tie more than half of the rows together"
    elif texts:
        why = f"{shared.mean():.0%} of the rows share their text with other items, as labels do"
    else:
        why = ""
    warning = why and (
        f"The split may put equal texts on two sides: {why}. All rows of one media item stay "
        "together."
    )
    return media, np.flatnonzero(~is_text), warning


def _shared(column: np.ndarray, media: np.ndarray) -> np.ndarray:
    """bool `[m]`: whether the row's item also occurs in a row of another component."""
    present = np.flatnonzero(column >= 0)
    shared = np.zeros(len(column), bool)
    ids, of = column[present], media[present]
    if not all_differ(ids, int(ids.max(initial=-1)) + 1):
        lowest = np.full(ids.max() + 1, len(column))
        highest = np.full(ids.max() + 1, -1)
        np.minimum.at(lowest, ids, of)
        np.maximum.at(highest, ids, of)
        shared[present] = (lowest != highest)[ids]
    return shared


def unpaired(
    links: np.ndarray, groups: np.ndarray, linked: np.ndarray, held: np.ndarray
) -> list[np.ndarray]:
    """Sorted int64 items of each modality that may be trained on though no row links them.

    links: int64 `[m, K]`; groups: int64 `[m]`, -1 if there is none; linked: bool `[m]`, the rows
    that are links; held: bool `[m]`, those that are not for training. An item of a row that is no
    link counts, unless a link has it too, or rows that share items or a group lead from it to one
    that is held out.
    """
    rows = np.flatnonzero(~linked | held)
    component = connected_components([*links[rows].T, groups[rows]])
    reached = np.isin(component, component[held[rows]])
    free = links[rows[~reached]]
    return [
        np.setdiff1d(column[column >= 0], own)
        for column, own in zip(free.T, links[linked].T, strict=True)
    ]


def split_rows(
    component: np.ndarray, least_key: np.ndarray, fractions: Fractions, seed: int
) -> dict[str, np.ndarray]:
    """`train`, `validation`, `test` → sorted int64 rows.

    component: int64 `[m]`; least_key: uint64 `[m]`, the least key among the row's binding items.
    Both parts get at least one component wherever there are `FEWEST` components or more, and never
    more rows than their share, unless every component is larger than that. Raises `DataError` if
    one component contains more than half of ten rows or more.
    """
    rows = len(component)
    sizes = np.bincount(component)
    wanted = fractions.validation + fractions.test > 0
    if wanted and rows >= FEWEST_ROWS and sizes.max() > rows / 2:
        raise DataError(
            f"{sizes.max():,} of {rows:,} rows belong together (they share items or a group), "
            "so the data can't be split by fraction.",
            "Give the split: --split-column COLUMN, or --validation and --test with their own "
            "files. If --group-by is what ties them, group by another column.",
        )
    least = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    if sizes.max() > 1:
        np.minimum.at(least, component, least_key)
    else:
        least[component] = least_key
    place = _scramble(least ^ _scramble(np.array([seed % 2**64], np.uint64)))
    enough = rows  # components that may be looked at
    if sizes.max() <= 1:
        enough = 2 + round(fractions.test * rows) + round(fractions.validation * rows)
    order = _lowest(place, enough)
    part = np.zeros(len(sizes), np.int8)
    if len(sizes) >= FEWEST:
        for code, fraction in ((2, fractions.test), (1, fractions.validation)):
            if fraction > 0:
                part[_take(order[part[order] == 0], sizes, round(fraction * rows))] = code
    of_row = part[component]
    return {name: np.flatnonzero(of_row == code) for code, name in enumerate(SPLITS)}


def _lowest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the least values are, `count` or a few more, sorted by value."""
    if count >= len(values):
        return np.argsort(values)
    found = np.flatnonzero(values <= np.partition(values, count)[count])
    return found[np.argsort(values[found])]


def _take(order: np.ndarray, sizes: np.ndarray, target: int) -> list[int]:
    """The first components in `order` that fit into `target` rows together; one at least."""
    sums = np.cumsum(sizes[order])
    fit = int(np.searchsorted(sums, max(target, 1), side="right"))
    taken, left = order[:fit].tolist(), max(target, 1) - int(sums[fit - 1] if fit else 0)
    for one in order[fit:] if left else ():
        if sizes[one] <= left:
            taken.append(one)
            left -= sizes[one]
            if not left:
                break
    return taken or [order[np.argmin(sizes[order])]]


def _scramble(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea & Flood 2014) of each uint64."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _least_keys(links: np.ndarray, items: Sequence[Items], binding: np.ndarray) -> np.ndarray:
    """uint64 `[m]`: the least key among the binding items of each row (of all, if it has none)."""
    highest = np.iinfo(np.uint64).max
    least = np.full(len(links), highest)
    for columns in (binding, range(links.shape[1])):
        none_yet = least == highest
        for k in columns if none_yet.any() else ():
            present = none_yet & (links[:, k] >= 0)
            some = slice(None) if present.all() else present
            least[some] = np.minimum(least[some], items[k].keys[links[some, k], 0])
    return least


def _leaks(
    links: np.ndarray,
    items: Mapping[str, Items],
    parts: Mapping[str, np.ndarray],
    given: Sequence[str],
) -> list[str]:
    """A warning for each modality and pair of splits, one of them `given`, that share items."""
    found = []
    for k, modality in enumerate(items) if given else ():
        count = len(items[modality])
        ids = {name: members(links[rows, k], count) for name, rows in parts.items()}
        for first, second in combinations(SPLITS, 2):
            if first not in given and second not in given:
                continue
            name, other = (second, first) if second in given else (first, second)
            count = int((ids[first] & ids[second]).sum())
            if count:
                of = int(ids[name].sum())
                where = "training rows" if other == SPLITS[0] else f"{other} rows"
                found.append(
                    f"{count:,} of the {of:,} {modality} items of the {name} split are also in "
                    f"{where}."
                )
    return found
