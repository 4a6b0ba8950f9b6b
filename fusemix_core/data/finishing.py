"""From gathered rows to a dataset: items united by content, facts read, splits assigned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusemix_core.data import splits
from fusemix_core.data.dataset import SPLITS, PairedDataset, Rejected, say_rejected
from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.data.gathered import GatheredTexts
from fusemix_core.data.gathering import Gatherer
from fusemix_core.data.hashes import HashMemory, reference_keys
from fusemix_core.data.items import Items, Origin, chosen, first_occurrences
from fusemix_core.data.near import NearFiles, near_references
from fusemix_core.data.references import Reference
from fusemix_core.data.repeats import first_of_equal, merged_groups, most_trusted
from fusemix_core.data.suspects import suspicious_texts
from fusemix_core.errors import DataError
from fusemix_core.home import home

Progress = Callable[[str, int, int], None]
"""Called with (modality, done, total) while files are hashed."""


def finish(
    gatherer: Gatherer,
    fractions: splits.Fractions,
    seed: int,
    warnings: list[str],
    by_file: tuple[str, ...],
    progress: Progress | None,
    *,
    repeats: bool = False,
) -> PairedDataset:
    """The dataset of what was gathered, without what can't be read, split.

    Args:
        gatherer: the rows.
        fractions, seed: of the splits that are drawn.
        warnings: those so far; the dataset's, with what is found here.
        by_file: the splits that have files of their own.
        progress: called while files are hashed.
        repeats: whether equal rows count each for itself.
    """
    memory = HashMemory(home() / "hashes.sqlite")
    rejected = dict.fromkeys(gatherer.rejected)
    items, links, merged = _unite_all(gatherer, memory, rejected, progress, warnings)
    facts = _facts(gatherer, links, rejected, warnings)
    linked = np.flatnonzero(sum(column >= 0 for column in links.T) >= gatherer.least)
    if not len(linked):
        raise DataError(f"No row can be used.\n{say_rejected(list(rejected))}".rstrip())
    told, group = gatherer.split.values(), gatherer.group.values()
    first, keep, trust, groups = _links_once(gatherer, links, linked, facts, repeats)
    kept = _all_or(keep, len(links))
    once = links[kept]
    parts, notes = splits.assign(once, items, told[kept], groups, fractions, seed, by_file)
    warnings += notes + [memory.warning] * bool(memory.warning)
    origin = gatherer.origin()
    unpaired: dict[str, np.ndarray] = {}
    if gatherer.unpaired:
        held = told > 0
        held[keep[np.concatenate([parts[name] for name in SPLITS[1:]])]] = True
        held[linked] |= held[linked[first]]
        free, held_back = _unpaired(links, linked, group, held, origin)
        unpaired = dict(zip(items, free, strict=True))
        rejected |= held_back
    warnings += _leave_unmeasured(parts, trust)
    warnings += [one.warning for one in suspicious_texts(items, links[_all_or(linked, len(links))])]
    facts = {name: fact.select(kept) for name, fact in facts.items()}
    dataset = PairedDataset(
        items,
        once,
        parts,
        origin.select(kept),
        list(rejected),
        gatherer.rows_read,
        warnings,
        gatherer.least,
        facts if (trust == 1).all() else {TRUST: Fact("number", trust), **facts},
        unpaired,
        merged=merged,
    )
    warnings += _counts(dataset, gatherer)
    return dataset


def _links_once(
    gatherer: Gatherer,
    links: np.ndarray,
    linked: np.ndarray,
    facts: dict[str, Fact],
    repeats: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The links without those that say the same as an earlier one.

    Args:
        links: int64 `[m, K]`, of all rows.
        linked: int64 `[n]`, those of them that link enough.
        facts: of all rows.
        repeats: whether all of them stay.

    Returns:
        (int64 `[n]` for each of `linked` the first in `linked` that says the same; int64 `[k]` the
        links that stay, as indices of `links`; their trust; their groups, None without any).
    """
    told, group = gatherer.split.values(), gatherer.group.values()
    some = _all_or(linked, len(links))
    selected = {name: fact.select(some) for name, fact in facts.items()}
    every = np.arange(len(linked))
    first = every if repeats else first_of_equal(links[some], told[some], selected)
    once = np.flatnonzero(first == np.arange(len(first)))
    trust = most_trusted(first, gatherer.trust.values()[some])
    groups = merged_groups(first, group[some])[once] if gatherer.groups else None
    return first, linked[once], trust[once], groups


def _all_or(rows: np.ndarray, count: int) -> np.ndarray | slice:
    """Different rows, in order, as an index that copies nothing if they are all of `count`."""
    return rows if len(rows) < count else slice(None)


def _unpaired(
    links: np.ndarray, linked: np.ndarray, group: np.ndarray, held: np.ndarray, origin: Origin
) -> tuple[list[np.ndarray], dict[Rejected, None]]:
    """(items of each modality to train on without a partner; the rows with one item that may not
    be trained on, which is not a fault of theirs). linked: the rows that are links."""
    is_link = np.zeros(len(links), bool)
    is_link[linked] = True
    free = splits.unpaired(links, group, is_link, held)
    held_back = np.zeros(len(links), bool)
    for column, own in zip(links.T, free, strict=True):
        known = np.unique(column[is_link])
        held_back |= (column >= 0) & ~is_link & ~np.isin(column, own) & ~np.isin(column, known)
    reason = "its item belongs together with a held-out row"
    rows = np.flatnonzero(held_back)
    return free, {Rejected(*origin[i], "", reason, bad=False): None for i in rows}


def _counts(dataset: PairedDataset, gatherer: Gatherer) -> list[str]:
    """What the user should know of rows that are not used, or used in a way they may not expect."""
    warnings = []
    counts = dataset.counts
    if counts["repeated"]:
        warnings.append(
            f"{counts['repeated']:,} of {counts['seen']:,} rows repeat others: equal rows count "
            "once."
        )
    passed = [one for one in dataset.rejected if not one.bad and not one.incomplete]
    if passed:
        example = f"{passed[0].path}, row {passed[0].row}: {passed[0].reason}"
        count = "1 file or row is" if len(passed) == 1 else f"{len(passed):,} files or rows are"
        warnings.append(f"{count} passed over, such as {example}.")
    if gatherer.lists_in_python:
        warnings.append(
            f"{gatherer.lists_in_python:,} cells have a list as Python writes it, ['a', 'b']: each "
            "entry is read by itself."
        )
    return warnings


def _unite_all(
    gatherer: Gatherer,
    memory: HashMemory,
    rejected: dict[Rejected, None],
    progress: Progress | None,
    warnings: list[str],
) -> tuple[dict[str, Items], np.ndarray, dict[str, int]]:
    """(items unique by content; int64 `[m, K]` the links between them; modality → how many are the
    same as another). What can't be read is -1 in the links, and in `rejected`."""
    links, origin = gatherer.link_table(), gatherer.origin()
    items: dict[str, Items] = {}
    merged: dict[str, int] = {}
    for k, modality in enumerate(gatherer.takes):
        items[modality], number, faults = _unite(gatherer, modality, memory, progress, warnings)
        files = not items[modality].medium.inline  # equal texts are one to begin with
        merged[modality] = files * (len(number) - len(faults) - len(items[modality]))
        if len(items[modality]) == len(number):
            continue  # each reference is an item
        entries = links[:, k].copy()
        links[:, k] = np.where(entries >= 0, number[entries] if len(number) else -1, -1)
        for i in np.flatnonzero((entries >= 0) & (links[:, k] < 0)) if faults else ():
            path, row = origin[i]
            rejected[Rejected(path, row, modality, faults[int(entries[i])])] = None
    return items, links, merged


def _facts(
    gatherer: Gatherer, links: np.ndarray, rejected: dict[Rejected, None], warnings: list[str]
) -> dict[str, Fact]:
    """The facts of all links. Links of a row whose facts can't be read become -1."""
    facts, faults, notes = gatherer.facts.read()
    warnings += notes
    row, origin = gatherer.fact_row.values(), gatherer.origin()
    for i in np.flatnonzero(np.isin(row, list(faults))) if faults else ():
        links[i] = -1
        rejected[Rejected(*origin[i], "", faults[int(row[i])])] = None
    return {name: fact.select(row) for name, fact in facts.items()}


def _leave_unmeasured(parts: dict[str, np.ndarray], trust: np.ndarray) -> list[str]:
    """Take rows of trust 0 out of all splits but `train`; what the user should know of them."""
    for name in SPLITS[1:]:
        parts[name] = parts[name][trust[parts[name]] > 0]
    count = int((trust == 0).sum())
    if not count:
        return []
    return [
        f"Rows of trust 0 ({count:,}) measure nothing, and train only objectives that take trust."
    ]


def _unite(
    gatherer: Gatherer,
    modality: str,
    memory: HashMemory,
    progress: Progress | None,
    warnings: list[str],
) -> tuple[Items, np.ndarray, dict[int, str]]:
    """(items unique by content; int64 `[n]` the item of each reference, or -1; why it is -1)."""
    gathered, takes = gatherer.gathered[modality], gatherer.takes[modality]
    faults: dict[int, str] = {}
    if isinstance(gathered, GatheredTexts):
        references, keys = gathered.finished()
    else:
        found_here: list[Reference] = gathered.references
        references = found_here
        tell = None if progress is None else lambda done, total: progress(modality, done, total)
        keys, faults = reference_keys(references, memory, tell)
        if faults:
            near = NearFiles(gatherer.bases, gatherer.allow_outside)
            found, notes = near_references(references, faults, near, modality)
            warnings += notes
            more, still = reference_keys(list(found.values()), memory)
            for at, (i, reference) in enumerate(found.items()):
                references[i], keys[i] = reference, more[at]
                faults.pop(i)
                if at in still:
                    faults[i] = still[at]
    first, number = first_occurrences(keys)
    if faults:
        good = np.setdiff1d(np.arange(len(references)), np.fromiter(faults, np.int64))
        first, inverse = first_occurrences(keys[good])
        first, number = good[first], np.full(len(references), -1, np.int64)
        number[good] = inverse
    origin = gatherer.origin(gathered.file, gathered.row)
    if len(first) == len(references):
        return Items(modality, takes, references, keys, origin.select(slice(None))), number, faults
    kept = chosen(references, first)
    return Items(modality, takes, kept, keys[first], origin.select(first)), number, faults
