"""WebDataset shards: tar archives whose members with one key are one sample."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.folders import modality_of_suffix
from fusemix_core.data.jsonl import parse_object
from fusemix_core.data.media import MAX_BYTES
from fusemix_core.data.references import Fault, SliceReference
from fusemix_core.data.rows import Reader, Row
from fusemix_core.errors import DataError, short

_MAX_JSON = 16 << 20
_MAX_HEADER = 1 << 20
"""Bytes of all headers of one member: long names and the like stand in members of their own."""
_BLOCK = 512
_PIECE = 1 << 20


class ShardReader(Reader):
    """A `.tar`, or a folder with `.tar` files in it.

    The key of a member is its path up to the first dot of its name. Columns are the extensions
    (`jpg`, `txt`, `seg.png`), `image`, `audio`, `video` and the like for the first member of such
    a type, `text` for the whole `.txt`, and the fields of a `.json` where no member has that name.
    Members are read in place, by offset; nothing is extracted. Hidden files are passed over. What
    follows a damaged header is looked for.
    """

    def matches(self, path: Path) -> bool:
        if path.is_dir():
            return any(path.glob("*.tar"))
        return path.is_file() and path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
        for shard in sorted(path.glob("*.tar")) if path.is_dir() else [path]:
            yield from _shard_rows(shard)


def _shard_rows(path: Path) -> Iterator[Row | Rejected]:
    samples: dict[str, dict[str, SliceReference]] = {}
    known = modality_of_suffix()
    refused: list[tuple[str, str]] = []
    for key, extension, result in _members(path):
        sample = samples.setdefault(key, {})
        if isinstance(result, str):
            refused.append((key, result))
        elif extension in sample:
            refused.append((key, f"'{short(result.name)}' is there twice"))
        else:
            sample[extension] = result
    numbers = {key: number for number, key in enumerate(samples, start=1)}
    for key, reason in refused:
        yield Rejected(str(path), numbers[key], "", reason)
    faulty = {key for key, _ in refused}
    for key, members in samples.items():
        if members:
            yield Row(str(path), numbers[key], _values(members, known))
        elif key not in faulty:
            yield Rejected(str(path), numbers[key], "", f"sample '{short(key)}' is empty")


def _members(path: Path) -> Iterator[tuple[str, str, SliceReference | str]]:
    """(key, extension, where it is or why it is refused) of every file in an archive."""
    path = path.absolute()
    if not path.is_file():
        raise DataError("this is not a file", path=path)
    size, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        while True:
            fault = ""
            try:
                for member, after in _headers(file, at):
                    at = after
                    if not member.isdir() and not posixpath.basename(member.name).startswith("."):
                        yield (*_key(member.name), _reference(path, member, size))
            except Exception as error:  # tarfile meets any bytes, and raises many things
                fault = str(error) or type(error).__name__
            file.seek(at)
            if not fault and any(file.read(_BLOCK)):
                fault = "bad header"
            again = _next_header(file, at + _BLOCK)
            if fault and at == 0 and again is None:
                raise DataError(
                    f"can't be read as an uncompressed tar: {fault}",
                    "Members are read in place, so unpack .tar.gz to .tar with gunzip.",
                    path=path,
                )
            if fault or again is not None:
                fault = fault or "zeros in place of a header"
                yield "", "", f"the archive is damaged or cut short at byte {at:,}: {fault}"
            if again is None:
                return
            at = again


class _Capped:
    """An archive as tarfile reads it, which is headers only: `left` bytes of them."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self.left = _MAX_HEADER

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("its header is too large")
        return self._read(size)


def _headers(file: BinaryIO, at: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """(member, where the next one begins) from byte `at` on, as far as tarfile understands."""
    file.seek(at)
    capped = _Capped(file)
    with tarfile.open(fileobj=capped, mode="r:") as archive:
        while (member := archive.next()) is not None:
            if archive.offset <= at or member.size < 0:
                raise tarfile.ReadError("its header leads backwards")
            at = archive.offset
            archive.members = []  # tarfile keeps them all otherwise
            capped.left = _MAX_HEADER
            yield member, at


def _next_header(file: BinaryIO, at: int) -> int | None:
    """The first place from `at` on, in steps of a block, where a header with a right sum begins."""
    file.seek(at)
    while piece := file.read(_PIECE):
        found = piece.find(b"ustar")
        while found >= 0:
            start = found - 257  # of its block: POSIX.1-1988, the field `magic`
            if start >= 0 and start % _BLOCK == 0:
                with suppress(tarfile.HeaderError):
                    tarfile.TarInfo.frombuf(piece[start : start + _BLOCK], "utf-8", "replace")
                    return at + start
            found = piece.find(b"ustar", found + 1)
        at += len(piece)
    return None


def _key(name: str) -> tuple[str, str]:
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def _reference(path: Path, member: tarfile.TarInfo, size: int) -> SliceReference | str:
    name = short(member.name)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return f"the member '{name}' points outside the archive"
    if not member.isreg() or member.issparse():
        return f"the member '{name}' is a link or special file"
    if member.offset_data + member.size > size:
        return f"the archive is cut short in '{name}'"
    if member.size > MAX_BYTES:
        return f"the member '{name}' is larger than {MAX_BYTES >> 30} GiB"
    return SliceReference(str(path), member.offset_data, member.size, member.name)


def _values(members: dict[str, SliceReference], known: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = dict(members)
    for extension, reference in members.items():
        kind = known.get("." + extension.rpartition(".")[2])
        if kind:
            values.setdefault(kind, reference)
    if "txt" in members:
        values.setdefault("text", members["txt"])
    if "json" in members:
        for name, value in _fields(members["json"]).items():
            values.setdefault(name, value)
    return values


def _fields(reference: SliceReference) -> dict[str, Any]:
    """The fields of a `.json` member; a broken one is a fault of the sample's text."""
    if reference.size > _MAX_JSON:
        return {"text": Fault(f"{reference} is larger than {_MAX_JSON >> 20} MiB")}
    try:
        fields = parse_object(reference.read())
    except OSError as error:
        fields = str(error)
    if isinstance(fields, str):
        return {"text": Fault(f"{reference}: {fields}")}
    return {name: value for name, value in fields.items() if not isinstance(value, dict)}
