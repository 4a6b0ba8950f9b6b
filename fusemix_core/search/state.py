"""The state of a collection: `index.json`, which names all that counts. Replaced by rename."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from fusemix_core.disk import TEMPORARY, explained, write_atomically
from fusemix_core.errors import ArtefactError
from fusemix_core.search.items import SUFFIX, ItemTable
from fusemix_core.search.parts import read_signed, signed
from fusemix_core.search.segments import ADVICE
from fusemix_core.versions import version

NAME = "index.json"
MODEL = "model"
FORMAT = "fusemix-index-1"

LEVELS = np.concatenate(
    [np.arange(99), *(100 - 10.0**-n * np.arange(10, 1, -1) for n in (1, 2, 3)), [100]]
)
"""The percentiles that are kept, closer together at the top."""


@dataclass(frozen=True)
class State:
    """The contents of a collection, as of its last update.

    Attributes:
        weights: SHA-256 of the model's weights.
        dim: numbers per embedding. kept: columns that the scorer adds.
        scorer: its registered name.
        takes: modality that can be searched → its medium.
        asks: modality of a query → its medium, in the order of the scorer's columns.
        data: fields of `DataConfig`.
        backend: `name` and `options` of the index.
        columns: column of the data → `number` or `text`.
        roots: folders in which media may lie.
        items: digest of the table of items, "" before the first update.
        counts: modality → items.
        scores: "QUERY>TARGET" → scores of random pairs at `LEVELS`.
        updated: when, in ISO 8601.
    """

    weights: str
    dim: int
    kept: int
    scorer: str
    takes: Mapping[str, str]
    asks: Mapping[str, str]
    data: Mapping[str, Any]
    backend: Mapping[str, Any]
    columns: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    items: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, list[float]] = field(default_factory=dict)
    updated: str = ""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The state of the collection in a folder.

        Raises:
            ArtefactError: The folder has none, or it is damaged.
        """
        try:
            facts = read_signed(folder / NAME)
        except (FileNotFoundError, NotADirectoryError):
            raise ArtefactError(
                f"{folder} is not an index.",
                f"Build one: fusemix index RUN --data D --out {folder}",
            ) from None
        except OSError as error:
            raise ArtefactError(f"{folder / NAME} can't be read: {error.strerror}.") from error
        if facts.get("format") != FORMAT:
            raise ArtefactError(
                f"{folder / NAME} has the format {facts.get('format')}; this fusemix reads "
                f"{FORMAT}.",
                "Upgrade fusemix, or build the index again.",
            )
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in facts.items() if name in known}
        return cls(**values | {"roots": tuple(values["roots"])})

    def write(self, folder: Path) -> None:
        """Make this the state of a folder, and delete tables of other states."""
        facts = {**vars(self), "roots": list(self.roots)}
        with explained(f"The index {folder}", ADVICE):
            made = {"format": FORMAT, "fusemix": version(), **facts}
            write_atomically(folder / NAME, [signed(made)])
        self.sweep(folder)

    def sweep(self, folder: Path) -> None:
        """Delete tables of other states, and files of killed writers. The folder must be locked."""
        for path in folder.iterdir():
            old = path.suffix == SUFFIX and path.stem != self.items
            if old or (path.name.startswith(".") and path.suffix == TEMPORARY):
                with contextlib.suppress(OSError):
                    path.unlink()

    def table(self, folder: Path) -> ItemTable:
        """The items."""
        return ItemTable(folder / f"{self.items}{SUFFIX}", self.columns)

    def percentile(self, query: str, target: str, score: float) -> float | None:
        """How many of 100 random pairs score lower; None if that isn't known."""
        found = self.scores.get(f"{query}>{target}")
        if not found:
            return None
        return float(np.interp(score, found, LEVELS))
