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
from fusemix_core.latents.runtime import absent
from fusemix_core.latents.stamps import Stamps, state_of
from fusemix_core.search.items import SUFFIX, ItemTable
from fusemix_core.search.network import NEEDED, TEXT
from fusemix_core.search.network import SUFFIX as QUERY
from fusemix_core.search.parts import read_signed, signed
from fusemix_core.search.segments import ADVICE, digest_of
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
        networks: modality of a text query → `file`, the digest of its query network, or `reason`,
            why it has none, and `by`, the versions of the packages that were tried.
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
    networks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

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
        """Make this the state of a folder, and delete files of other states."""
        facts = {**vars(self), "roots": list(self.roots)}
        with explained(f"The index {folder}", ADVICE):
            made = {"format": FORMAT, "fusemix": version(), **facts}
            write_atomically(folder / NAME, [signed(made)])
        self.sweep(folder)

    def sweep(self, folder: Path) -> None:
        """Delete files of other states and of killed writers. The folder must be locked."""
        kept = {path.name for path in self.files(folder)}
        for path in folder.iterdir():
            old = path.suffix in (SUFFIX, QUERY) and path.name not in kept
            if old or (path.name.startswith(".") and path.suffix == TEMPORARY):
                with contextlib.suppress(OSError):
                    path.unlink()

    def files(self, folder: Path) -> list[Path]:
        """The files that are named by their digests: the items, and query networks."""
        networks = [one["file"] for one in self.networks.values() if "file" in one]
        names = [f"{self.items}{SUFFIX}"] if self.items else []
        return [folder / name for name in (*names, *(f"{one}{QUERY}" for one in networks))]

    def quick(self) -> dict[str, str]:
        """Modality of text queries → "" if its query network answers here, else why none does."""
        found = {}
        for modality in (m for m, takes in self.asks.items() if takes == TEXT):
            known = self.networks.get(modality)
            if known is None:
                found[modality] = "there is no query network yet; `fusemix index update` makes one"
            elif "file" not in known:
                found[modality] = known["reason"]
            else:
                package = absent(*NEEDED)
                found[modality] = f"the package {package} is not installed" if package else ""
        return found

    def table(self, folder: Path) -> ItemTable:
        """The items."""
        return ItemTable(folder / f"{self.items}{SUFFIX}", self.columns)

    def percentile(self, query: str, target: str, score: float) -> float | None:
        """How many of 100 random pairs score lower; None if that isn't known."""
        found = self.scores.get(f"{query}>{target}")
        if not found:
            return None
        return float(np.interp(score, found, LEVELS))


def fault(path: Path) -> str:
    """The fault of a file that is named by its digest, or nothing. It is read whole unless it
    was found right and is unchanged since."""
    stamps = Stamps(path.parent)
    with contextlib.suppress(OSError):
        state = state_of(path)
        if stamps.checksum(path.name, state) == path.stem:
            return ""
        if digest_of(path) == path.stem:
            stamps.add({path.name: (state, path.stem)})
            return ""
    return f"{path} is missing, or does not match its checksum."
