"""What is told of a job's data: what became of the rows, which columns were read, warnings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusemix_core.errors import short

if TYPE_CHECKING:
    from fusemix_core.data.dataset import PairedDataset

Tell = Callable[[str], None]
"""Takes one sentence or two for the user."""

_PARTS = ("used", "partial", "rejected", "repeated", "incomplete", "merged")

_NAMES = {"partial": "of these in part"}
_MOST_NAMED = 4
"""Columns of a modality that are named in one line."""


@dataclass(frozen=True)
class Notices:
    """What a user should know of the data that a job reads.

    Attributes:
        rows: `seen` = `used` + `repeated` + `rejected` + `incomplete`; of those used `partial` have
            a rejected entry; `merged` counts items that are the same as another.
        columns: modality → the columns that were read.
        warnings: A sentence or two each.
    """

    rows: dict[str, int]
    columns: dict[str, list[str]]
    warnings: list[str]

    @classmethod
    def of(cls, dataset: PairedDataset, more: Sequence[str] = ()) -> Notices:
        """Those of a dataset, with `more` warnings. Each warning is there once."""
        rows, places = dataset.counts, {(one.path, one.row) for one in dataset.rejected}
        rows["partial"] = len(places) - rows["rejected"] - rows["incomplete"]
        rows["merged"] = sum(dataset.merged.values())
        columns = {m: list(names) for m, names in dataset.columns.items()}
        return cls(rows, columns, list(dict.fromkeys([*dataset.warnings, *more])))

    def as_dict(self) -> dict[str, Any]:
        """`rows`, `columns` and `warnings`, as in results.json and in every `--json`."""
        return {"rows": self.rows, "columns": self.columns, "warnings": self.warnings}

    def without_folders(self, sources: Sequence[str]) -> dict[str, Any]:
        """`as_dict`, with files below the folders of the sources named without these: for what may
        be published."""
        folders = {f"{Path(p).parent}/" for s in sources for p in (s, os.path.abspath(s))}
        warnings = list(self.warnings)
        for folder in sorted(folders - {"./", "//"}, key=len, reverse=True):
            warnings = [warning.replace(folder, "") for warning in warnings]
        return {**self.as_dict(), "warnings": list(dict.fromkeys(warnings))}

    def summary(self, source: Sequence[str]) -> str:
        """One line: the rows of the source, and the columns that were read."""
        shown = [f"{self.rows['seen']:,} rows seen"]
        for name in _PARTS:
            if self.rows[name] or name in ("used", "rejected"):
                shown.append(f"{self.rows[name]:,} {_NAMES.get(name, name)}")
        read = [
            f"{modality} from {_named(columns)}"
            for modality, columns in self.columns.items()
            if columns
        ]
        where = ", ".join(short(one) for one in source[:3]) + (", …" if len(source) > 3 else "")
        return f"{where}: {', '.join(shown)}" + (f"; {', '.join(read)}." if read else ".")


def _named(columns: Sequence[str]) -> str:
    if len(columns) > _MOST_NAMED:
        return f"{len(columns):,} columns"
    return " and ".join(repr(short(c, 60)) for c in columns)


def silent(text: str) -> None:
    """Tells nobody."""
