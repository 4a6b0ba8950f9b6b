"""References: where the content of an item lies. Small, hashable, and picklable for workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fusemix_core.data.foreign import HEAD, what_is
from fusemix_core.data.media import MAX_TEXT, Medium


class Cells(Protocol):
    """A table whose cells contain media as bytes. Hashable by what it names, not by its
    contents."""

    stamp: str
    """A file that is written anew whenever the table changes."""

    def read(self, column: str, index: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FileReference:
    """A whole file."""

    path: str

    def read(self) -> bytes:
        return Path(self.path).read_bytes()

    def remembered_as(self) -> tuple[str, str]:
        """(name in the memory of hashes, file that must not have changed)."""
        return self.path, self.path

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class SliceReference:
    """`size` bytes at `offset` of an uncompressed archive; `name` is the member's."""

    path: str
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise OSError(f"{self} is cut short")
        return data

    def remembered_as(self) -> tuple[str, str]:
        return f"{self.path}#{self.offset}+{self.size}", self.path

    def __str__(self) -> str:
        return f"{self.path}#{self.name}"


@dataclass(frozen=True, slots=True)
class CellReference:
    """A cell of a table that holds bytes."""

    cells: Cells
    column: str
    index: int

    def read(self) -> bytes:
        return self.cells.read(self.column, self.index)

    def remembered_as(self) -> tuple[str, str]:
        return str(self), self.cells.stamp

    def __str__(self) -> str:
        return f"{self.cells}#{self.column}/{self.index}"


@dataclass(frozen=True, slots=True)
class HeldReference:
    """Bytes held in memory."""

    data: bytes
    name: str

    def read(self) -> bytes:
        return self.data

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Stands in a row for the captions in a text file, one per line.

    path: in a row relative to the row's folder. encoding: None is UTF-8.
    """

    path: str
    encoding: str | None = None

    def captions(self) -> list[str] | Fault:
        """The lines that are not blank. A file of white space has none."""
        path = Path(self.path)
        try:
            if not path.is_file():
                return Fault(f"{path} is not a file")
            if path.stat().st_size > MAX_TEXT:
                return Fault(f"{path} is larger than {MAX_TEXT >> 20} MiB")
            data = path.read_bytes()
            if (found := what_is(data[:HEAD])) is not None:
                return Fault(f"{path} is {found[0]}. {found[1]}".rstrip(". "))
            lines = data.decode(self.encoding or "utf-8-sig").splitlines()
            return [line for line in lines if line.strip()]
        except UnicodeDecodeError:
            other = "" if self.encoding else "; name its encoding, such as --encoding cp1252"
            return Fault(f"{path} is not {self.encoding or 'UTF-8'}{other}")
        except OSError as error:
            return Fault(f"{path} can't be read: {error.strerror}")


@dataclass(frozen=True, slots=True)
class Fault:
    """Stands in a row for a value that can't be used; `reason` says why."""

    reason: str


Reference = FileReference | SliceReference | CellReference | HeldReference


def hold(value: Any, how: Medium, name: str) -> HeldReference:
    """Bytes, or an item in Python's memory, as a reference, without loss (`Medium.pack`).

    Raises `DataError`.
    """
    if isinstance(value, bytes) and not how.opened:
        return HeldReference(value, name)
    return HeldReference(how.pack(value), name)
