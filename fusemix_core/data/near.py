"""Finds the file that is meant by a name that isn't quite its own."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from urllib.parse import unquote

from fusemix_core.data.references import FileReference, Reference

_MOST_NAMES = 10_000
_MOST_FOLDERS = 200
_HINTS = 20
"""Missing files for which near names are looked for."""
_DEEPEST = 30
_TRIED = 50
"""Files that must lie in a folder to show that it is the one meant."""


def within(base: str, path: str) -> bool:
    """Whether a path lies in the folder `base`, by its name."""
    return path == base or path.startswith(base.rstrip(os.sep) + os.sep)


def end_in(base: str, name: str) -> str | None:
    """The longest end of a path of another machine that is a file in `base`; None for a path that
    exists here."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if len(parts) < 2 or os.pardir in parts or os.path.lexists(os.path.join(base, name)):
        return None
    for at in range(1, min(len(parts), _DEEPEST)):
        end = os.path.join(*parts[at:])
        if os.path.isfile(os.path.join(base, end)):
            return end
    return None


class NearFiles:
    """The files near to names under which there is none.

    A name is near if only case, Unicode form (NFC and NFD), backslashes or escapes (`%20`) differ,
    and if there is no second file so near. Files outside the folders of the data, also by a link,
    are not near.

    Args:
        bases: the absolute folders to which names are relative.
        allow_outside: whether links may lead out of them.
    """

    def __init__(self, bases: Collection[str], allow_outside: bool) -> None:
        self._bases = sorted(bases, key=len, reverse=True)
        self._allow_outside = allow_outside
        self._listings: dict[str, dict[str, list[str]]] = {}

    def base_of(self, path: str) -> str | None:
        """The innermost of the folders that holds a path."""
        return next((base for base in self._bases if within(base, path)), None)

    def find(self, path: str) -> str | None:
        """The one file near to `path`, if there is none."""
        base = self.base_of(path)
        if base is None:
            return None
        relative = os.path.relpath(path, base).replace("\\", "/")
        return self._walk(base, relative) or (
            self._walk(base, unquote(relative)) if "%" in relative else None
        )

    def _walk(self, base: str, relative: str) -> str | None:
        if "\0" in relative:
            return None
        found = base
        for part in os.path.normpath(relative).split(os.sep):
            if part == os.pardir:
                return None
            step = os.path.join(found, part)
            if not os.path.lexists(step):
                near = self._listing(found).get(_folded(part), [])
                if len(near) != 1:
                    return None
                step = os.path.join(found, near[0])
            found = step
        return found if os.path.isfile(found) and self._allowed(base, found) else None

    def folder_of(self, base: str, paths: Sequence[str]) -> str | None:
        """The one folder inside `base` that holds files of these names, all missing in `base`."""
        names = [os.path.relpath(path, base) for path in paths[:_TRIED]]
        holding = [
            folder
            for folder in self._folders(base)
            if self._allowed(base, folder)
            and all(os.path.isfile(os.path.join(folder, name)) for name in names)
        ]
        return holding[0] if len(holding) == 1 else None

    def hint(self, path: str) -> str:
        """The names most like a missing file's, as part of a message; "" if there are none."""
        base = self.base_of(path)
        end = base and end_in(base, os.path.relpath(path, base))
        if end:
            return f"; did you mean {end}?"
        folder, name = os.path.split(path.replace("\\", "/"))
        listing = self._listing(folder)
        names = [one for ones in listing.values() for one in ones]
        near = listing.get(_folded(name), [])
        near = near or [one for one in names if os.path.splitext(one)[0] == name][:2]
        near = near or [one for one in names if _stem(one) == _stem(name)][:2]
        if not near and len(names) <= _MOST_NAMES:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        return f"; did you mean {' or '.join(near[:3])}?" if near else ""

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """Folded name → the names in a folder."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):
                names = []
            for name in names:
                listing.setdefault(_folded(name), []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]

    def _folders(self, base: str) -> Iterable[str]:
        """The folders in `base` and in these, so many at most."""
        found: list[str] = []
        for place in [base, None]:
            for folder in [place] if place else list(found):
                try:
                    inner = [e.path for e in os.scandir(folder) if e.is_dir() and e.name[0] != "."]
                except OSError:
                    inner = []
                found += sorted(inner)
                if len(found) > _MOST_FOLDERS:
                    return found[:_MOST_FOLDERS]
        return found

    def _allowed(self, base: str, path: str) -> bool:
        return self._allow_outside or within(os.path.realpath(base), os.path.realpath(path))


def near_references(
    references: Sequence[Reference | str],
    faults: dict[int, str],
    near: NearFiles,
    modality: str,
) -> tuple[dict[int, FileReference], list[str]]:
    """(index → the file that is meant, warnings) of files that do not exist.

    If none of a folder's files exists, and one folder inside it has files of all these names, they
    are meant. The reasons in `faults` of what isn't found name what is near.
    """
    missing = {
        i: one.path
        for i in faults
        if isinstance(one := references[i], FileReference) and not os.path.lexists(one.path)
    }
    bases: dict[str | None, list[int]] = {}
    for i, path in missing.items():
        bases.setdefault(near.base_of(path), []).append(i)
    of_base = Counter(
        near.base_of(one.path) for one in references if isinstance(one, FileReference)
    )
    found: dict[int, FileReference] = {}
    warnings = []
    for base, indices in bases.items():
        whole = base and len(indices) == of_base[base]
        folder = near.folder_of(base, [missing[i] for i in indices]) if whole else None
        if folder:
            warnings.append(f"The files of {modality} are read from the folder {folder}.")
        before = len(found)
        for i in indices:
            inside = folder and os.path.join(folder, os.path.relpath(missing[i], base))
            path = inside if inside and os.path.isfile(inside) else near.find(missing[i])
            if path:
                found[i] = FileReference(path)
            elif len(faults) - len(found) <= _HINTS or i in indices[:_HINTS]:
                faults[i] += near.hint(missing[i])
        if len(found) > before and not folder:
            i = next(i for i in indices if i in found)
            name = os.path.relpath(missing[i], base)
            warnings.append(
                f"{len(found) - before:,} files of {modality} are found by a name that is nearly "
                f"theirs, such as {os.path.relpath(found[i].path, base)} for {name}."
            )
    return found, warnings


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _folded(os.path.splitext(name)[0])
