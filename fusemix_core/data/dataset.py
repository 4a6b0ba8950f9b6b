"""The paired dataset: unique items of each modality, links, splits, and what was rejected."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusemix_core.data.facts import Fact
from fusemix_core.data.items import Items, Origin
from fusemix_core.errors import DataError, short

SPLITS = ("train", "validation", "test")
NO_ENTRY = "the row has no"
"""How the reason begins if a row lacks an entry."""
_MAX_REASON = 600
"""Characters. A reason quotes what is wrong, which may be as long as a file."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that is not used: an entry of a row, a row, or a file of a folder.

    Attributes:
        modality: empty if it is the row itself.
        bad: whether it counts against `max_bad`. A file that is nothing pairs are made of doesn't.
        incomplete: whether it is a row that only lacks an entry, which may be.
    """

    path: str
    row: int
    modality: str
    reason: str
    bad: bool = True
    incomplete: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", short(self.reason, _MAX_REASON))


def say_rejected(rejected: Sequence[Rejected], most: int = 5) -> str:
    """The first few of them, a line each."""
    lines = [
        f"  {r.path}, row {r.row}: {r.modality + ': ' if r.modality else ''}{r.reason}"
        for r in rejected[:most]
    ]
    return "\n".join(lines + ([f"  … and {len(rejected) - most} more"] * (len(rejected) > most)))


def missing_hint(rejected: Sequence[Rejected]) -> str:
    """How to allow rows without an entry; "" if there are none."""
    lacking = any(not one.modality and NO_ENTRY in one.reason for one in rejected)
    return "If entries may be missing: --missing ok\n" if lacking else ""


def trust_hint(rejected: Sequence[Rejected]) -> str:
    """How to read the data if a column `trust` means something else; "" if none was wrong."""
    wrong = any(not one.modality and one.reason.startswith("trust is '") for one in rejected)
    hint = "If the column of trust means something else: --trust-column none"
    return f"{hint}\n" if wrong else ""


@dataclass
class PairedDataset:
    """Pairs (or tuples) of items.

    items: by modality, in the order of the columns of `links`.
    links: int64 `[m, K]`, -1 where a modality is missing; each row links `least` items or more.
    splits: `train`, `validation`, `test` → int64 rows of `links`, disjoint; one may be empty.
    origin: the file and row that each link came from.
    rejected: what could not be used; rows_read: how many rows were read, rejected ones included.
    warnings: what the user should know, a sentence or two each.
    facts: further columns of the links by name. `trust` is among them unless all of it is 1; a link
    of trust 0 isn't a pair to be found, so it is in no split but `train`.
    unpaired: modality → sorted int64 items for training that no row links.
    columns: modality → the columns that it was read from. merged: modality → how many of its files
    or texts are the same as another, so that they count as one item.
    """

    items: dict[str, Items]
    links: np.ndarray
    splits: dict[str, np.ndarray]
    origin: Origin
    rejected: list[Rejected] = field(default_factory=list)
    rows_read: int = 0
    warnings: list[str] = field(default_factory=list)
    least: int = 2
    facts: dict[str, Fact] = field(default_factory=dict)
    unpaired: dict[str, np.ndarray] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    merged: dict[str, int] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.items)

    def __len__(self) -> int:
        return len(self.links)

    def without(self, modality: str, bad: dict[int, str]) -> PairedDataset:
        """The dataset without some items of a modality, which could not be decoded.

        bad: item → reason. Their links become -1, rows left with fewer than `least` items go, and
        each row concerned is in `rejected`. Items keep their numbers.
        """
        if not bad:
            return self
        column = self.modalities.index(modality)
        is_bad = np.zeros(len(self.items[modality]), bool)
        is_bad[list(bad)] = True
        entries = self.links[:, column]
        hit = (entries >= 0) & is_bad[entries]
        rejected = dict.fromkeys(self.rejected)
        for i in np.flatnonzero(hit):
            path, row = self.origin[i]
            rejected[Rejected(path, row, modality, bad[int(entries[i])])] = None
        unpaired = dict(self.unpaired)
        for i in np.intersect1d(unpaired.get(modality, ()), list(bad)).astype(int):
            path, row = self.items[modality].origin[i]
            rejected[Rejected(path, row, modality, bad[i])] = None
            unpaired[modality] = unpaired[modality][unpaired[modality] != i]
        links = self.links.copy()
        links[hit, column] = -1
        keep = (links >= 0).sum(axis=1) >= self.least
        new_row = np.cumsum(keep) - 1
        splits = {name: new_row[rows[keep[rows]]] for name, rows in self.splits.items()}
        return dataclasses.replace(
            self,
            links=links[keep],
            splits=splits,
            origin=self.origin.select(np.flatnonzero(keep)),
            rejected=list(rejected),
            facts={name: fact.select(keep) for name, fact in self.facts.items()},
            unpaired=unpaired,
        )

    def with_split(self, name: str, rows: np.ndarray) -> PairedDataset:
        """The dataset with other rows, int64, in one of the splits."""
        return dataclasses.replace(self, splits={**self.splits, name: rows})

    def leaving_out(self, modalities: Sequence[str]) -> PairedDataset:
        """The dataset without modalities that no row has."""
        kept = [m for m in self.modalities if m not in modalities]
        columns = [self.modalities.index(m) for m in kept]
        items = {m: self.items[m] for m in kept}
        unpaired = {m: ids for m, ids in self.unpaired.items() if m in kept}
        return dataclasses.replace(
            self, items=items, links=self.links[:, columns], unpaired=unpaired
        )

    @property
    def counts(self) -> dict[str, int]:
        """What became of the rows: `seen` = `used` + `repeated` + `rejected` + `incomplete`.

        A row is used if any of it is; repeated if all that it links is used from other rows;
        incomplete if it only lacks an entry, which may be; else it is in `rejected`. A file of a
        folder that belongs to no row counts as a row.
        """
        used = self.origin.count()
        lost = {(one.path, one.row) for one in self.rejected}
        if lost:
            lost -= {self.origin[i] for i in range(len(self.links))}
        alone = {
            items.origin[i]
            for modality, ids in self.unpaired.items()
            for items in [self.items[modality]]
            for i in ids.tolist()
        }
        used, lost = used + len(alone), lost - alone
        repeated = self.rows_read - used - len(lost)
        incomplete = len(lost & {(one.path, one.row) for one in self.rejected if one.incomplete})
        return {
            "seen": self.rows_read,
            "used": used,
            "repeated": repeated,
            "rejected": len(lost) - incomplete,
            "incomplete": incomplete,
        }

    @property
    def bad_rows(self) -> int:
        """How many of the rows read have something bad."""
        return len({(r.path, r.row) for r in self.rejected if r.bad})

    def check_bad(self, max_bad: float) -> None:
        """Raise `DataError` if more than the share `max_bad` of the rows read is bad."""
        bad = self.bad_rows
        if bad <= max_bad * self.rows_read:
            return
        share = bad / max(self.rows_read, 1)
        enough = min(1.0, np.ceil(share * 100) / 100)
        raise DataError(
            f"{bad:,} of {self.rows_read:,} rows ({share:.1%}) can't be used; "
            f"the limit is {max_bad:.1%}.\n{say_rejected([r for r in self.rejected if r.bad])}",
            f"{trust_hint(self.rejected)}{missing_hint(self.rejected)}"
            f"Mend these rows, or allow as many: --max-bad {enough:g}",
        )

    def write_rejected(self, path: str | Path, reasons: bool = True) -> None:
        """Write `rejected`, one JSON object a line: path, row, modality, reason, `bad` if it is
        false and `incomplete` if it is true. Reasons quote the rows: they may be left out."""
        with open(path, "w", encoding="utf-8") as file:
            for one in self.rejected:
                fields = dataclasses.asdict(one)
                if not reasons:
                    del fields["reason"]
                if one.bad:
                    del fields["bad"]
                if not one.incomplete:
                    del fields["incomplete"]
                line = json.dumps(fields, ensure_ascii=False)
                file.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
