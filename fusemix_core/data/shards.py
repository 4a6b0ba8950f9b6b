"""WebDataset shards: tar archives whose members with one key are one sample."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.folders import MODALITY_OF_SUFFIX
from fusemix_core.data.jsonl import parse_object
from fusemix_core.data.references import Fault, SliceReference
from fusemix_core.data.rows import Row
from fusemix_core.errors import DataError

_MAX_JSON = 16 << 20


class ShardReader:
    """A `.tar`, or a folder with `.tar` files in it.

    The key of a member is its path up to the first dot of its name. Columns are the extensions
    (`jpg`, `txt`, `seg.png`), `image`, `audio` and `video` for the first member of such a type,
    `text` for the whole `.txt`, and the fields of a `.json` where no member has that name. Members
    are read in place, by offset; nothing is extracted. Hidden files are passed over.
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
    refused: list[tuple[str, str]] = []
    for key, extension, result in _members(path):
        sample = samples.setdefault(key, {})
        if isinstance(result, str):
            refused.append((key, result))
        elif extension in sample:
            refused.append((key, f"'{result.name}' is there twice"))
        else:
            sample[extension] = result
    numbers = {key: number for number, key in enumerate(samples, start=1)}
    for key, reason in refused:
        yield Rejected(str(path), numbers[key], "", reason)
    faulty = {key for key, _ in refused}
    for key, members in samples.items():
        if members:
            yield Row(str(path), numbers[key], _values(members))
        elif key not in faulty:
            yield Rejected(str(path), numbers[key], "", f"sample '{key}' is empty")


def _members(path: Path) -> Iterator[tuple[str, str, SliceReference | str]]:
    """(key, extension, where it is or why it is refused) of every file in an archive."""
    path = path.absolute()
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            while True:
                try:
                    member = archive.next()
                except (tarfile.TarError, OSError) as error:
                    yield "", "", f"the archive is damaged or cut short: {error}"
                    return
                if member is None:
                    return
                archive.members = []  # tarfile keeps them all otherwise
                if not member.isdir() and not posixpath.basename(member.name).startswith("."):
                    yield (*_key(member.name), _reference(path, member, size))
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"can't be read as an uncompressed tar: {error}",
            "Members are read in place, so unpack .tar.gz to .tar with gunzip.",
            path=path,
        ) from error


def _key(name: str) -> tuple[str, str]:
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def _reference(path: Path, member: tarfile.TarInfo, size: int) -> SliceReference | str:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return f"the member '{member.name}' points outside the archive"
    if not member.isreg() or member.issparse():
        return f"the member '{member.name}' is a link or special file"
    if member.offset_data + member.size > size:
        return f"the archive is cut short in '{member.name}'"
    return SliceReference(str(path), member.offset_data, member.size, member.name)


def _values(members: dict[str, SliceReference]) -> dict[str, Any]:
    values: dict[str, Any] = dict(members)
    for extension, reference in members.items():
        kind = MODALITY_OF_SUFFIX.get("." + extension.rpartition(".")[2])
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
