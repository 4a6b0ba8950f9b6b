"""Goes through the files of a folder, with links that are followed once and no file forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusemix_core.data.near import within


@dataclass(frozen=True, slots=True)
class Seen:
    """A file in a folder, or a folder in it that is not read.

    Attributes:
        name: path relative to the folder.
        problem: why a folder is not read; "" for a file.
        bad: whether files may be lost by that.
    """

    name: str
    problem: str = ""
    bad: bool = True


def walk(root: Path, allow_outside: bool) -> Iterator[Seen]:
    """All files of a folder and its subfolders, in order of name; hidden ones are left out.

    A link to a folder outside is followed with `allow_outside` only. Below each folder at the top,
    every folder is read once, so that links can neither lead in circles nor multiply.
    """
    start = os.path.realpath(root)
    read: set[tuple[str, str]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield Seen(folder or ".", f"the folder can't be read: {error.strerror}")
            continue
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        folders = [entry for entry in entries if _is_folder(entry)]
        for entry in entries:
            if entry not in folders:
                name = os.path.join(folder, entry.name)
                broken = "." not in entry.name and not os.path.exists(entry.path)
                yield Seen(name, "the link leads nowhere" if broken else "")
        inner = []
        for entry in sorted(folders, key=lambda entry: entry.is_symlink()):
            name = os.path.join(folder, entry.name)
            real = os.path.realpath(entry.path)
            place = (name.split(os.sep)[0], real)
            if entry.is_symlink() and not allow_outside and not within(start, real):
                why = (
                    "is a link that leads out of the folder of the data; --allow-outside lets it in"
                )
                yield Seen(name, f"the folder {why}")
            elif real == start or place in read:
                yield Seen(name, "the folder is read already, under another name", bad=False)
            else:
                read.add(place)
                inner.append(name)
        waiting += sorted(inner, reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
