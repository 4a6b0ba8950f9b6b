"""Finds the columns of each modality."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.errors import DataError, short

if TYPE_CHECKING:
    from fusemix_core.specs import Takes

_MOST_NAMES = 10_000
"""With more columns than these none is likelier meant than another."""
_FILE = ("file", "filename", "file_name", "filepath", "file_path", "path")
KNOWN: Mapping[str, tuple[str, ...]] = {
    "image": ("image_path", "images", "img", "img_path", "image_file", "picture", "jpg", "png"),
    "text": ("caption", "captions", "alt", "alt_text", "description", "title", "sentence",
             "sentences", "txt", "label"),
    "audio": ("audio_path", "wav", "sound", "speech", "clip", "audio_file", "flac", "mp3"),
    "video": ("video_path", "video_file", "mp4"),
    "molecule": ("smiles", "SMILES"),
}  # fmt: skip
"""Names that a modality's column often has, the likeliest first."""


def find_columns(
    takes: Mapping[str, Takes],
    filled: Mapping[str, int],
    given: Mapping[str, str],
    path: str | Path,
) -> tuple[dict[str, list[str]], list[str]]:
    """(modality → its columns, warnings) for the modalities that have one.

    filled: column → how many of the first rows have something there. given: modality → columns,
    comma-separated. Otherwise the column named as the modality, else the one of `KNOWN` that is
    filled most often, else, for the only modality read from media, a column of file names. Case is
    ignored where a name is guessed. Raises `DataError` if a given column is missing.
    """
    available = list(filled)
    lower = {name.lower(): name for name in reversed(available)}
    media = [m for m, how in takes.items() if how != "text"]
    found: dict[str, list[str]] = {}
    warnings = []
    for modality, how in takes.items():
        if modality in given:
            found[modality] = _given(modality, given[modality], available, path)
            continue
        names = [modality.lower(), *KNOWN.get(modality, ())]
        if modality not in KNOWN and how in KNOWN and how != "text":
            same = [m for m, h in takes.items() if h == how]
            names += [how, *KNOWN[how]] if same == [modality] else []
        if media == [modality]:
            names += _FILE
        names = [name for name in dict.fromkeys(n.lower() for n in names) if name in lower]
        if not names:
            continue
        if names[0] != modality.lower():
            names.sort(key=lambda name: -filled[lower[name]])
        found[modality] = [lower[names[0]]]
        if modality == "text" and names[0] != "text" and len(names) > 1:
            also = ", ".join(repr(lower[n]) for n in names[1:])
            warnings.append(
                f"{path}: text is read from column '{lower[names[0]]}', not from {also}. Choose "
                f"with --column text=NAME, or take several: --column text={lower[names[0]]},"
                f"{lower[names[1]]}"
            )
    return found, warnings


def _given(modality: str, names: str, available: Sequence[str], path: str | Path) -> list[str]:
    columns = [name.strip() for name in names.split(",") if name.strip()]
    for name in columns:
        if name not in available:
            near = difflib.get_close_matches(name, available[:_MOST_NAMES], n=1)
            hint = f"Did you mean --column {modality}={near[0]}?\n" if near else ""
            raise DataError(
                f"there is no column '{name}' for {modality}", hint + say(available), path=path
            )
    if not columns:
        raise DataError(f"no column is named for {modality}", say(available), path=path)
    return columns


def missing_column(
    modality: str, available: Iterable[str], taken: Iterable[str], path: str | Path
) -> DataError:
    """The error for a modality whose column can't be guessed."""
    free = [name for name in available if name not in set(taken)]
    example = free[0] if len(free) == 1 else "NAME"
    return DataError(
        f"there is no column for {modality}",
        f"{say(available)}\nSay which: --column {modality}={example}",
        path=path,
    )


def say(columns: Iterable[str]) -> str:
    names = list(columns)
    more = f", … ({len(names)} in all)" if len(names) > 30 else ""
    return f"Columns: {', '.join(map(short, names[:30])) or '(none)'}{more}."
