"""Which rows of a dataset have a target, what is learnt from them, and how they are grouped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from fusemix_core.config import FuseConfig, Part
from fusemix_core.data.cells import FactColumn
from fusemix_core.data.dataset import SPLITS, PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.data.splits import connected_components
from fusemix_core.errors import DataError
from fusemix_core.fuser import Labelled
from fusemix_core.paired import LatentTable, PairedLatents
from fusemix_core.prediction import Task
from fusemix_core.registry import registry
from fusemix_core.runs.leaks import find_leaks
from fusemix_core.runs.matching import CLASSES, MATCH, matched
from fusemix_core.tasks.choose import check_groups, choose_task

GROUP = "fusemix_group"
"""The fact that says which rows belong together."""
LEAST = {"train": 10, "validation": 3, "test": 3}
"""The fewest rows with a target in each split."""


@dataclass(frozen=True)
class Targeted:
    """A dataset whose splits contain only rows with a target.

    Attributes:
        dataset: the rows.
        part: the task by its name and the user's options, without what is learnt.
        reason: why it is that task.
        groups: int64 `[m]`; rows of one number share a group or an item that isn't text.
        notes: what the user should know, a sentence or two each.
    """

    dataset: PairedDataset
    part: Part
    reason: str
    groups: np.ndarray
    notes: list[str]

    def after(self, before: PairedDataset) -> Targeted:
        """The same for a dataset from which rows that can't be encoded were taken since."""
        groups = self.groups if len(self.dataset) == len(before) else groups_of(self.dataset)
        return replace(self, groups=groups)

    def task(self, rows: np.ndarray) -> Task:
        """The task as learnt from these rows."""
        target = registry.target_of(registry.check("task", self.part))
        return target.learn(self.facts(rows), **self.part.options)

    def facts(self, rows: np.ndarray) -> dict[str, Fact]:
        """The targets of these rows as facts."""
        names = [name for name in self.dataset.facts if name not in (GROUP, "trust")]
        return {name: self.dataset.facts[name].select(rows) for name in names}

    def labelled(self, tables: Mapping[str, LatentTable], rows: np.ndarray, task: Task) -> Labelled:
        """The rows with their latents and targets."""
        links = torch.from_numpy(self.dataset.links[rows])
        pairs = PairedLatents(dict(tables), links)
        return Labelled(pairs, task.targets(self.facts(rows)), torch.from_numpy(self.groups[rows]))


def targeted(config: FuseConfig, dataset: PairedDataset) -> Targeted:
    """The dataset with its targets.

    Raises:
        DataError, ConfigError: nothing can be learnt from these targets, and why.
    """
    groups = groups_of(dataset)
    if config.task.name == MATCH:
        dataset, groups = matched(dataset, groups, config.seed)
    targets = ("target",) if config.task.name == MATCH else config.targets
    facts = {name: dataset.facts[name] for name in targets}
    known = ~np.logical_and.reduce([fact.missing for fact in facts.values()])
    if config.targets == ("time", "event"):
        known = ~np.logical_or.reduce([fact.missing for fact in facts.values()])
    notes = []
    if missing := int((~known).sum()):
        notes.append(f"{missing:,} of {len(known):,} rows have no target: they are left out.")
    splits = {name: rows[known[rows]] for name, rows in dataset.splits.items()}
    dataset = replace(
        dataset, splits=splits, facts={**facts, **_only(dataset.facts, (GROUP, "trust"))}
    )
    if GROUP in dataset.facts:
        check_groups(dataset.facts[GROUP], config.data.group_by or "group")
    able = {name: fact.select(np.flatnonzero(known)) for name, fact in facts.items()}
    part, reason = _task_of(config.task, able)
    found = Targeted(dataset, part, reason, groups, notes)
    _check_counts(config, found)
    task = found.task(splits["train"])
    notes += task.notes(found.facts(splits["train"]))
    for split in SPLITS[1:]:
        if unseen := task.unseen(found.facts(splits[split])):
            shown = ", ".join(f"'{name}' ({count:,})" for name, count in unseen.items())
            notes.append(f"Classes of the {split} split that no training row has: {shown}.")
    return found


def _task_of(given: Part, facts: Mapping[str, Fact]) -> tuple[Part, str]:
    """The task with the user's options, and why it is that."""
    if given.name == MATCH:
        options = {"classes": list(CLASSES), "positive": CLASSES[1], **given.options}
        return Part("classify", options), "the rows are pairs, and as many mismatches were made"
    name, reason = choose_task(facts, given.name)
    return replace(given, name=name), reason


def groups_of(dataset: PairedDataset) -> np.ndarray:
    """int64 `[m]`: rows of one number share a value of the group's column, or an item that isn't
    text or a table."""
    inline = [items.medium.inline for items in dataset.items.values()]
    columns = [column for column, text in zip(dataset.links.T, inline, strict=True) if not text]
    if GROUP in dataset.facts:
        columns.append(dataset.facts[GROUP].values)
    if not columns:
        return np.arange(len(dataset))
    return connected_components(columns)


def suspects(config: FuseConfig, found: Targeted) -> list[str]:
    """A sentence for each column of a table that gives the target away, or may."""
    name = next((name for name in config.targets if name in ("target", "event")), None)
    if name is None:
        return []
    column = FactColumn.parse(config.data.facts.get(name, "")).column
    return find_leaks(found.dataset, name, column, found.groups)


def _only(facts: Mapping[str, Fact], names: tuple[str, ...]) -> dict[str, Fact]:
    return {name: facts[name] for name in names if name in facts}


def _check_counts(config: FuseConfig, found: Targeted) -> None:
    """Raise `DataError` if a split has too few rows with a target."""
    counts = {name: len(rows) for name, rows in found.dataset.splits.items()}
    if config.folds:
        counts = {"train": sum(counts.values())}
    for name, count in counts.items():
        if count < LEAST[name]:
            raise DataError(
                f"The {name} split has {count} rows with a target; at least {LEAST[name]} are "
                "needed.",
                "Give more rows, another split (--split-column, --test-fraction), or predict all "
                "rows by cross-validation: --folds 5",
            )
    if config.folds and len(np.unique(found.groups)) < config.folds:
        raise DataError(
            f"The rows are of {len(np.unique(found.groups))} groups: too few for "
            f"{config.folds} folds.",
            "Ask for fewer folds, or group by another column: --group-by COLUMN",
        )
