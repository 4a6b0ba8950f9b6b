"""Finds the columns of each modality."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fusemix_core.data.cells import KINDS
from fusemix_core.data.media import medium
from fusemix_core.data.templates import Template, sources_of
from fusemix_core.errors import DataError, short
from fusemix_core.registry import registry

_SPACES = re.compile(r"[\s-]+")
_MOST_NAMES = 10_000
"""With more columns than these none is likelier meant than another."""
_FILE = ("file", "filename", "file_name", "filepath", "file_path", "path")


def find_columns(
    takes: Mapping[str, str],
    filled: Mapping[str, int],
    given: Mapping[str, str],
    path: str | Path,
) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of each modality that has any.

    Without a given column it is the one named as the modality, else the one of its usual names
    (`ModalitySpec.columns`) that is filled most often, else, for the only modality read from media,
    a column of file names. A guess ignores case, and takes spaces and hyphens for underscores.

    Args:
        takes: modality → the medium of its items.
        filled: column → how many of the first rows have something there.
        given: modality → its columns, comma-separated, or a template of columns in braces.
        path: the source, for messages.

    Returns:
        (modality → its columns, warnings).

    Raises:
        DataError: a given column is missing.
    """
    lower = {_plain(name): name for name in reversed(list(filled))}
    found: dict[str, list[str]] = {}
    warnings = []
    for modality in takes:
        if modality in given:
            found[modality] = _given(modality, given[modality], list(filled), path)
            continue
        usual = dict.fromkeys(map(_plain, _usual_names(modality, takes)))
        names = [lower[name] for name in usual if name in lower]
        if not names:
            continue
        if names[0].lower() != modality.lower():
            names.sort(key=lambda name: -filled[name])
        found[modality] = names[:1]
        if modality == "text" and names[0].lower() != "text" and len(names) > 1:
            warnings.append(_one_of_several(names, path))
    return found, warnings


def _plain(name: str) -> str:
    return _SPACES.sub("_", name.lower())


def _usual_names(modality: str, takes: Mapping[str, str]) -> list[str]:
    """What the column of a modality may be called, the likeliest first."""
    declared, how = registry.modality(modality), takes[modality]
    kind, _, own = modality.partition(":")
    if own:  # of several of a kind: their usual names would be the same
        return [modality, own, f"{own}_{kind}", f"{kind}_{own}", f"{own}_path"]
    names = [modality, *(declared.columns if declared else ())]
    if medium(how).inline:
        return names
    usual = registry.modality(how)
    if declared is None and usual and list(takes.values()).count(how) == 1:
        names += [how, *usual.columns]
    if [m for m, other in takes.items() if not medium(other).inline] == [modality]:
        names += _FILE
    return names


def _one_of_several(names: Sequence[str], path: str | Path) -> str:
    also = ", ".join(map(repr, names[1:]))
    return (
        f"{path}: text is read from column '{names[0]}', not from {also}. Choose with "
        f"--column text=NAME, or take several: --column text={names[0]},{names[1]}"
    )


def _given(modality: str, names: str, available: Sequence[str], path: str | Path) -> list[str]:
    columns: list[str] = names_in(names, available)
    if "{" in names and not set(columns) <= set(available):
        columns = [_template(modality, names, path)]
    for name in sources_of(columns):
        if name not in available:
            hint = _near(f"--column {modality}=", name, available) + say(available)
            raise DataError(f"there is no column '{name}' for {modality}", hint, path=path)
    if not columns:
        raise DataError(f"no column is named for {modality}", say(available), path=path)
    return columns


def _template(modality: str, text: str, path: str | Path) -> Template:
    """Several columns as one item. Raises `DataError`."""
    template = Template(text)
    if not template.columns:
        raise DataError(
            f"'{short(text)}' names no column for {modality}",
            "A template has columns in braces: --column 'text={impression} {findings}'",
            path=path,
        )
    return template


def names_in(names: str, available: Sequence[str]) -> list[str]:
    """The columns that a list with commas names. A name may have commas itself: the longest that
    is there is taken."""
    parts, columns = names.split(","), []
    if not any("," in name for name in available):
        return [name for name in map(str.strip, parts) if name]
    while parts:
        ends = range(len(parts), 0, -1)
        joined = (",".join(parts[:end]).strip() for end in ends)
        end, name = next(
            ((e, n) for e, n in zip(ends, joined, strict=True) if n in available),
            (1, parts[0].strip()),
        )
        columns.append(name)
        parts = parts[end:]
    return [name for name in columns if name]


def no_column(option: str, name: str, available: Sequence[str], path: str | Path) -> DataError:
    """The error for a column of facts that isn't there; `option` is what named it, such as
    `--fact age=`."""
    hint = _near(option, name, available) + say(available)
    if name.rpartition(":")[0] in available:
        hint = f"'{name.rpartition(':')[2]}' is not a kind: {', '.join(KINDS)}.\n{hint}"
    return DataError(f"there is no column '{name}' ({option}{name})", hint, path=path)


def _near(option: str, name: str, available: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, available[:_MOST_NAMES], n=1)
    return f"Did you mean {option}{near[0]}?\n" if near else ""


def missing_column(
    modality: str, available: Iterable[str], taken: Iterable[str], path: str | Path
) -> DataError:
    """The error for a modality whose column can't be guessed."""
    free = [name for name in available if name not in set(taken)]
    example = free[0] if len(free) == 1 else "NAME"
    hint = f"{say(available)}\nSay which: --column {modality}={example}"
    if len(list(available)) == 1 and Path(path).is_file():
        hint += "\nIf another mark separates the cells: --delimiter MARK"
    return DataError(f"there is no column for {modality}", hint, path=path)


def say(columns: Iterable[str]) -> str:
    names = list(columns)
    more = f", … ({len(names)} in all)" if len(names) > 30 else ""
    return f"Columns: {', '.join(map(short, names[:30])) or '(none)'}{more}."
