"""WebDataset shards: tar archives whose members with one key are one sample."""

from __future__ import annotations

import posixpath
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.foreign import HEAD, what_is
from fusemix_core.data.jsonl import parse_object
from fusemix_core.data.media import MAX_BYTES, MAX_TEXT
from fusemix_core.data.references import Fault, HeldReference, Reference, SliceReference
from fusemix_core.data.rows import Note, Reader, Row
from fusemix_core.data.suffixes import is_about, modality_of_suffix
from fusemix_core.errors import DataError, short

_MAX_JSON = 16 << 20
_MAX_HEADER = 1 << 20
"""Bytes of all headers of one member: long names and the like stand in members of their own."""
_BLOCK = 512
_PIECE = 1 << 20
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_UNPACKED = 1 << 30
"""Bytes of the members of a compressed archive, which are held in memory."""
_WHOLE = 0.5
"""If more of the samples than this share have two members or more, their keys are right."""


def is_shard(name: str) -> bool:
    """Whether a file so named is a tar archive."""
    return name.lower().endswith((".tar", *_COMPRESSED))


class ShardReader(Reader):
    """A `.tar`, or a `.tar.gz` that unpacks to a gigabyte at most.

    The key of a member is its path up to the first dot of its name, or up to the last dot if only
    this gives samples that are pairs. Columns are the extensions (`jpg`, `txt`, `seg.png`),
    `image`, `audio`, `video` and `text` for the members of such a type (those without a further
    dot, else the first), and the fields of a `.json` if no member has that name. Members are read
    in place, by offset; nothing is extracted. Hidden files are left out. What follows a damaged
    header is looked for.

    Args:
        encoding: of the texts; None is UTF-8.
    """

    def __init__(self, *, encoding: str | None = None) -> None:
        self.encoding = encoding

    def matches(self, path: Path) -> bool:
        return path.is_file() and is_shard(path.name)

    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        members = list(_members(path))
        key = _key
        if _shares_types(members):
            key = _key_at_last_dot
            note = "the names of the samples have dots in them: the suffix is what follows the last"
            yield Note(f"{path}: {note}.")
        yield from _rows(path, members, key, self.encoding)


Member = tuple[str, SliceReference | HeldReference | str]
"""(name, where it is or why it is refused); without a name for what is not a member."""


def _rows(
    path: Path,
    members: list[Member],
    key_of: Callable[[str], tuple[str, str]],
    encoding: str | None,
) -> Iterator[Row | Rejected | Note]:
    samples: dict[str, dict[str, Any]] = {}
    refused: list[tuple[str, str]] = []
    for name, result in members:
        key, extension = key_of(name) if name else ("", "")
        sample = samples.setdefault(key, {})
        if isinstance(result, str):
            refused.append((key, result))
        elif extension in sample:
            refused.append((key, f"'{short(name)}' is there twice"))
        else:
            sample[extension] = result
    numbers = {key: number for number, key in enumerate(samples, start=1)}
    for key, reason in refused:
        yield Rejected(str(path), numbers[key], "", reason)
    faulty = {key for key, _ in refused}
    modalities = {*modality_of_suffix().values(), "text"}
    noted: set[tuple[str, str]] = set()
    for key, sample in samples.items():
        if sample:
            values, several = _values(sample, encoding)
            for kind, names in several.items() - noted:
                noted.add((kind, names))
                yield Note(
                    f"Samples have several members for {kind} ({names}): the first is read. For "
                    f"another: --column {kind}={names.rpartition(', ')[2]}"
                )
            if is_about(key) and not values.keys() & modalities:
                yield Rejected(
                    str(path), numbers[key], "", f"{short(key)}: not a sample", bad=False
                )
                continue
            has_medium = not values.keys().isdisjoint(modalities - {"text"})
            name = key if has_medium else f"{key} ({', '.join(sample)})"
            yield Row(str(path), numbers[key], values, name=name)
        elif key not in faulty:
            yield Rejected(str(path), numbers[key], "", f"sample '{short(key)}' is empty")


def _shares_types(members: list[Member]) -> bool:
    """Whether keys that end at the first dot join what belongs to several samples."""
    first: dict[str, Counter[str]] = {}
    last: dict[str, set[str]] = {}
    for name, result in members:
        if not name or isinstance(result, str):
            continue
        key, extension = _key_at_last_dot(name)
        last.setdefault(key, set()).add(extension)
        first.setdefault(_key(name)[0], Counter())[extension] += 1
    shared = any(max(types.values()) > 1 for types in first.values())
    whole = sum(len(types) > 1 for types in last.values())
    return shared and whole > _WHOLE * len(last)


def _members(path: Path) -> Iterator[Member]:
    """Every file in an archive."""
    if path.name.lower().endswith(_COMPRESSED):
        yield from _unpacked_members(path)
    else:
        yield from _members_in_place(path)


def _unpacked_members(path: Path) -> Iterator[Member]:
    """Those of a compressed archive, held in memory as they can't be read in place."""
    left = MAX_UNPACKED
    try:
        with tarfile.open(path, mode="r:*") as archive:
            for member in archive:
                if member.isdir() or posixpath.basename(member.name).startswith("."):
                    continue
                refused = _refusal(member)
                left -= 0 if refused else member.size
                if left < 0:
                    break
                file = None if refused else archive.extractfile(member)
                data = file.read() if file else b""
                name = f"{path}#{member.name}"
                yield member.name, refused or HeldReference(data, name)
    except Exception as error:  # tarfile meets any bytes, and raises many things
        yield "", f"the archive is damaged or cut short: {error or type(error).__name__}"
    if left < 0:
        raise DataError(
            f"unpacks to more than {MAX_UNPACKED >> 20} MiB, which is too much to hold in memory",
            "Unpack it with gunzip: the members of a .tar are read in place.",
            path=path,
        )


def _members_in_place(path: Path) -> Iterator[Member]:
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
                        yield member.name, _reference(path, member, size)
            except Exception as error:  # tarfile meets any bytes, and raises many things
                fault = str(error) or type(error).__name__
            file.seek(at)
            if not fault and any(file.read(_BLOCK)):
                fault = "bad header"
            again = _next_header(file, at + _BLOCK)
            if fault and at == 0 and again is None:
                raise _not_a_tar(file, path, fault)
            if fault or again is not None:
                fault = fault or "zeros in place of a header"
                yield "", f"the archive is damaged or cut short at byte {at:,}: {fault}"
            if again is None:
                return
            at = again


def _not_a_tar(file: BinaryIO, path: Path, fault: str) -> DataError:
    file.seek(0)
    found = what_is(file.read(HEAD))
    if found is not None:
        return DataError(f"this is {found[0]}", found[1], path=path)
    return DataError(f"can't be read as a tar archive: {fault}", path=path)


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
    # pyrefly: ignore[no-matching-overload]  # tarfile asks for more than it calls
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


def _key_at_last_dot(name: str) -> tuple[str, str]:
    stem, extension = posixpath.splitext(name)
    return stem, extension[1:].lower()


def _refusal(member: tarfile.TarInfo) -> str:
    """Why a member isn't read, or ""."""
    name = short(member.name)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return f"the member '{name}' points outside the archive"
    if not member.isreg() or member.issparse():
        return f"the member '{name}' is a link or special file"
    if member.size > MAX_BYTES:
        return f"the member '{name}' is larger than {MAX_BYTES >> 30} GiB"
    return ""


def _reference(path: Path, member: tarfile.TarInfo, size: int) -> SliceReference | str:
    if (refused := _refusal(member)) and "larger" not in refused:
        return refused
    if member.offset_data + member.size > size:
        return f"the archive is cut short in '{short(member.name)}'"
    return refused or SliceReference(str(path), member.offset_data, member.size, member.name)


def _values(members: dict[str, Any], encoding: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """(the columns of a sample; modality → the extensions of which only the first is read)."""
    values: dict[str, Any] = dict(members)
    plain: dict[str, list[Any]] = {}
    dotted: dict[str, list[str]] = {}
    modalities = {**modality_of_suffix(), ".txt": "text"}
    for extension, reference in members.items():
        before, _, last = extension.rpartition(".")
        if last == "txt" and encoding:
            values[extension] = _text(reference, encoding)
        if kind := modalities.get(f".{last}"):
            if before:
                dotted.setdefault(kind, []).append(extension)
            else:
                plain.setdefault(kind, []).append(values[extension])
    for kind, extensions in dotted.items():
        values.setdefault(kind, values[extensions[0]])
    for kind, found in plain.items():
        values[kind] = found[0] if len(found) == 1 else found
    if "json" in members:
        for name, value in _fields(members["json"]).items():
            values.setdefault(name, value)
    several = {
        kind: names for kind, names in dotted.items() if len(names) > 1 and kind not in plain
    }
    return values, {kind: ", ".join(names) for kind, names in several.items()}


def _text(reference: Reference, encoding: str) -> str | Fault:
    """A member's text, in another encoding than UTF-8."""
    try:
        if isinstance(reference, SliceReference) and reference.size > MAX_TEXT:
            return Fault(f"{reference} is larger than {MAX_TEXT >> 20} MiB")
        return reference.read().decode(encoding)
    except (OSError, UnicodeDecodeError, LookupError) as error:
        return Fault(f"{reference} is not {encoding}: {error}")


def _fields(reference: SliceReference | HeldReference) -> dict[str, Any]:
    """The fields of a `.json` member; a broken one is a fault of the sample's text."""
    size = reference.size if isinstance(reference, SliceReference) else len(reference.data)
    if size > _MAX_JSON:
        return {"text": Fault(f"{reference} is larger than {_MAX_JSON >> 20} MiB")}
    try:
        fields = parse_object(reference.read())
    except OSError as error:
        fields = str(error)
    if isinstance(fields, str):
        return {"text": Fault(f"{reference}: {fields}")}
    return {name: value for name, value in fields.items() if not isinstance(value, dict)}
