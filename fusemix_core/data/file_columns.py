"""Which columns hold the names of files, whatever they are called."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusemix_core.data.dialect import is_media_name
from fusemix_core.data.media import medium
from fusemix_core.data.rows import MAX_PATH, Row, is_missing
from fusemix_core.registry import registry

_TRIED = 20


def take_file_columns(
    found: dict[str, list[str]], takes: Mapping[str, str], rows: Sequence[Row], path: Path
) -> list[str]:
    """Replace a column of ids by the one column that holds files, and find one under any name.

    Args:
        found: modality → its columns; changed.
        takes: the modalities whose columns were guessed → the medium of their items.
        rows: the first rows of the source.
        path: the source, for messages.

    Returns:
        A warning for each column taken.
    """
    warnings = []
    for modality, how in takes.items():
        if medium(how).inline:
            continue
        column = found.get(modality, [""])[0]
        if column and not _only_ids(column, rows):
            continue
        taken = {name for names in found.values() for name in names}
        names = {name for row in rows for name in row.values} - taken
        holding = [name for name in sorted(names) if _holds_files(name, how, rows)]
        if len(holding) == 1:
            found[modality] = holding
            other = f", not from '{column}', which doesn't" if column else ""
            warnings.append(
                f"{path}: {modality} is read from column '{holding[0]}', which names files{other}."
            )
    return warnings


def _cells(column: str, rows: Sequence[Row]) -> list[tuple[Row, object]]:
    cells = [(row, row.values.get(column)) for row in rows]
    return [(row, cell) for row, cell in cells if not is_missing(cell)][:_TRIED]


def _only_ids(column: str, rows: Sequence[Row]) -> bool:
    """Whether the cells are texts or numbers that don't look like files and are none."""
    cells = _cells(column, rows)
    return all(
        isinstance(cell, str | int)
        and not isinstance(cell, bool)
        and not is_media_name(str(cell))
        and not _is_file(row, str(cell))
        and "/" not in str(cell)
        for row, cell in cells
    ) and bool(cells)


def _holds_files(column: str, how: str, rows: Sequence[Row]) -> bool:
    """Whether the cells name existing files of a medium."""
    suffixes = {s for one in registry.all_modalities() if one.medium == how for s in one.suffixes}
    cells = _cells(column, rows)
    return bool(cells) and all(
        isinstance(cell, str)
        and os.path.splitext(cell.strip())[1].lower() in suffixes
        and _is_file(row, cell.strip())
        for row, cell in cells
    )


def _is_file(row: Row, name: str) -> bool:
    folder = os.path.dirname(row.path) if row.base is None else row.base
    try:
        return len(name) <= MAX_PATH and os.path.isfile(os.path.join(folder, name))
    except (OSError, ValueError):
        return False
