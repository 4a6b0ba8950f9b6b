"""From gathered rows to a dataset: items united by content, facts read, splits assigned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusemix_core.data import splits
from fusemix_core.data.dataset import SPLITS, PairedDataset, Rejected, say_rejected
from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.data.gathering import Gatherer
from fusemix_core.data.hashes import HashMemory, reference_keys, text_keys
from fusemix_core.data.items import Items, first_occurrences
from fusemix_core.data.media import medium
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
) -> PairedDataset:
    """The dataset of what was gathered, without what can't be read, split.

    Args:
        gatherer: the rows.
        fractions, seed: of the splits that are drawn.
        warnings: those so far; the dataset's, with what is found here.
        by_file: the splits that have files of their own.
        progress: called while files are hashed.
    """
    memory = HashMemory(home() / "hashes.sqlite")
    rejected = dict.fromkeys(gatherer.rejected)
    items, links = _unite_all(gatherer, memory, rejected, progress)
    facts = _facts(gatherer, links, rejected, warnings)
    linked = (links >= 0).sum(axis=1) >= gatherer.least
    keep = np.flatnonzero(linked)
    if not len(keep):
        raise DataError(f"No row can be used.\n{say_rejected(list(rejected))}".rstrip())
    told, group = np.array(gatherer.split, np.int8), np.array(gatherer.group, np.int64)
    parts, notes = splits.assign(
        links[keep],
        items,
        told[keep],
        group[keep] if gatherer.groups else None,
        fractions,
        seed,
        by_file,
    )
    warnings += notes + [memory.warning] * bool(memory.warning)
    unpaired = {}
    if gatherer.unpaired:
        held = told > 0
        held[keep[np.concatenate([parts[name] for name in SPLITS[1:]])]] = True
        unpaired = dict(zip(items, splits.unpaired(links, group, linked, held), strict=True))
    trust = np.array(gatherer.trust, np.float32)[keep]
    warnings += _leave_unmeasured(parts, trust)
    facts = {name: fact.select(keep) for name, fact in facts.items()}
    return PairedDataset(
        items,
        links[keep],
        parts,
        gatherer.origin().select(keep),
        list(rejected),
        gatherer.rows_read,
        warnings,
        gatherer.least,
        facts if (trust == 1).all() else {TRUST: Fact("number", trust), **facts},
        unpaired,
    )


def _unite_all(
    gatherer: Gatherer,
    memory: HashMemory,
    rejected: dict[Rejected, None],
    progress: Progress | None,
) -> tuple[dict[str, Items], np.ndarray]:
    """(items unique by content, int64 `[m, K]` the links between them). What can't be read is -1 in
    the links, and in `rejected`."""
    links, origin = gatherer.link_table(), gatherer.origin()
    items: dict[str, Items] = {}
    for k, modality in enumerate(gatherer.takes):
        items[modality], number, faults = _unite(gatherer, modality, memory, progress)
        entries = links[:, k].copy()
        links[:, k] = np.where(entries >= 0, number[entries] if len(number) else -1, -1)
        for i in np.flatnonzero((entries >= 0) & (links[:, k] < 0)) if faults else ():
            path, row = origin[i]
            rejected[Rejected(path, row, modality, faults[int(entries[i])])] = None
    return items, links


def _facts(
    gatherer: Gatherer, links: np.ndarray, rejected: dict[Rejected, None], warnings: list[str]
) -> dict[str, Fact]:
    """The facts of all links. Links of a row whose facts can't be read become -1."""
    facts, faults, notes = gatherer.facts.read()
    warnings += notes
    row = np.array(gatherer.fact_row, np.int64)
    origin = gatherer.origin()
    for i in np.flatnonzero(np.isin(row, list(faults))) if faults else ():
        links[i] = -1
        rejected[Rejected(*origin[i], "", faults[int(row[i])])] = None
    return {name: fact.select(row) for name, fact in facts.items()}


def _leave_unmeasured(parts: dict[str, np.ndarray], trust: np.ndarray) -> list[str]:
    """Take rows of trust 0 out of all splits but `train`; what to tell the user of them."""
    for name in SPLITS[1:]:
        parts[name] = parts[name][trust[parts[name]] > 0]
    count = int((trust == 0).sum())
    if not count:
        return []
    return [
        f"Rows of trust 0 ({count:,}) measure nothing, and train only objectives that take trust."
    ]


def _unite(
    gatherer: Gatherer, modality: str, memory: HashMemory, progress: Progress | None
) -> tuple[Items, np.ndarray, dict[int, str]]:
    """(items unique by content; int64 `[n]` the item of each reference, or -1; why it is -1)."""
    gathered, takes = gatherer.gathered[modality], gatherer.takes[modality]
    references, faults = gathered.references, {}
    if medium(takes).inline:
        keys = text_keys(references)
    else:
        tell = None if progress is None else lambda done, total: progress(modality, done, total)
        keys, faults = reference_keys(references, memory, tell)
    good = np.setdiff1d(np.arange(len(references)), np.fromiter(faults, np.int64))
    first, inverse = first_occurrences(keys[good])
    number = np.full(len(references), -1, np.int64)
    number[good] = inverse
    origin = gatherer.origin(gathered.file, gathered.row).select(good[first])
    unique = [references[i] for i in good[first]]
    return Items(modality, takes, unique, keys[good[first]], origin), number, faults
