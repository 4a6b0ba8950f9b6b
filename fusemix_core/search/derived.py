"""An approximate index that is derived from the segments of a flat one: its files.

    <folder>/ivf.json       which file, and which segments it covers, with a checksum
    <folder>/<digest>.ivf   an inverted file as faiss writes it

Both can be deleted at any time: they are made again from the segments. `ivf.json` is replaced by
rename. An `.ivf` file that it does not name was left by a process that was killed; the next writer
deletes it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusemix_core.disk import explained, write_atomically, written_whole
from fusemix_core.errors import ArtefactError
from fusemix_core.latents.stamps import Stamps, State, state_of
from fusemix_core.search.parts import read_signed, signed
from fusemix_core.search.segments import ADVICE, digest_of

MANIFEST = "ivf.json"
SUFFIX = ".ivf"
_FORMAT = "fusemix-ivf-1"


@dataclass(frozen=True)
class Derived:
    """An inverted file, and what it covers.

    Attributes:
        index: `faiss.IndexIVF`; the id of a row is its place among the rows of all of `covers`.
        covers: (name, rows) of segments.
        trained: how many rows there were when its lists were chosen.
        probes: lists that a query looks into.
        recall: share of the best ten that were found with so many, in a trial.
    """

    index: Any
    covers: tuple[tuple[str, int], ...]
    trained: int
    probes: int
    recall: float


class DerivedFiles:
    """The files of one derived index, read and written.

    Attributes:
        fault: what is wrong with them, or nothing.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self.manifest = folder / MANIFEST
        self.fault = ""
        self._stamps = Stamps(folder)

    def state(self) -> State | None:
        """The values that change with the manifest; None if there is none."""
        with contextlib.suppress(OSError):
            return state_of(self.manifest)
        return None

    def read(self, mapped: bool = True) -> Derived | None:
        """The derived index; None if there is none, or `fault` says what is wrong with it.

        mapped: leave the lists in the file, which nothing can be added to.
        """
        self.fault = ""
        try:
            facts = read_signed(self.manifest)
            path = self._path(facts)
            if facts["format"] != _FORMAT or facts["width"] != self.width:
                raise ValueError
            state = state_of(path)
            if self._stamps.checksum(path.name, state) != path.stem:
                if digest_of(path) != path.stem:
                    raise ValueError
                self._stamps.add({path.name: (state, path.stem)})
            return self._opened(path, facts, mapped)
        except FileNotFoundError as error:
            if error.filename != str(self.manifest):
                self.fault = f"{error.filename} is missing."
        except NotADirectoryError:
            pass
        except ArtefactError as error:
            self.fault = error.message
        except (OSError, KeyError, TypeError, ValueError, RuntimeError):
            self.fault = f"{self.manifest} or its file is damaged."
        return None

    def _opened(self, path: Path, facts: dict[str, Any], mapped: bool) -> Derived:
        import faiss

        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        covers = tuple((str(name), int(rows)) for name, rows in facts["covers"])
        return Derived(index, covers, facts["trained"], facts["probes"], facts["recall"])

    def write(self, made: Derived) -> None:
        """Make this the derived index. Raises `ArtefactError` if it can't be written."""
        import faiss

        digest = hashlib.blake2b(digest_size=16)
        _serialised(made.index, digest.update, faiss)
        name = digest.hexdigest()
        facts = {
            "format": _FORMAT,
            "width": self.width,
            "file": name,
            "covers": [list(one) for one in made.covers],
            "trained": made.trained,
            "probes": made.probes,
            "recall": made.recall,
        }
        with explained(f"The index {self.folder}", ADVICE):
            with written_whole(self.folder / f"{name}{SUFFIX}") as file:
                _serialised(made.index, file.write, faiss)
            write_atomically(self.manifest, [signed(facts)])
        self.sweep()

    def remove(self) -> None:
        """Delete the derived index."""
        self.manifest.unlink(missing_ok=True)
        self.sweep()

    def sweep(self) -> None:
        """Delete files that the manifest does not name."""
        kept = None
        with contextlib.suppress(OSError, ArtefactError, KeyError):
            kept = self._path(read_signed(self.manifest))
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path != kept:
                with contextlib.suppress(OSError):
                    path.unlink()

    def check(self) -> list[str]:
        """Read the files whole; a sentence for each fault."""
        try:
            path = self._path(read_signed(self.manifest))
            if digest_of(path) == path.stem:
                return []
        except ArtefactError as error:
            return [error.message]
        except OSError:
            if not self.manifest.exists():
                return []
            return [f"{self.manifest} names a file that is missing."]
        return [f"{path} does not match its checksum."]

    def _path(self, facts: dict[str, Any]) -> Path:
        return self.folder / f"{facts['file']}{SUFFIX}"


def _serialised(index: Any, take: Callable[[bytes], Any], faiss: Any) -> None:
    """Give the bytes of an index to `take`, piece by piece."""

    def piece(data: bytes) -> None:  # faiss takes no other kind of callable
        take(data)

    faiss.write_index(index, faiss.PyCallbackIOWriter(piece, 1 << 22))
