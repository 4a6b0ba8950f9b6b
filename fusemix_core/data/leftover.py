"""The columns of a modality that takes all that nothing else uses, such as a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusemix_core.data.columns import missing_column, names_in, no_column
from fusemix_core.data.media import Medium
from fusemix_core.data.references import Reference
from fusemix_core.data.rows import Row
from fusemix_core.errors import DataError, short

_SHOWN = 30


@dataclass(frozen=True)
class Source:
    """A source of rows.

    Attributes:
        path: Its place, for messages.
        filled: Its columns.
        used: Those that are read as something else than an item.
        rows: The first rows.
    """

    path: Path
    filled: Mapping[str, int]
    used: Collection[str | None]
    rows: Sequence[Row]


def take_leftover(
    found: dict[str, list[str]],
    media: Mapping[str, Medium],
    source: Source,
    drop: Mapping[str, str],
    earlier: Mapping[str, Iterable[str]],
) -> list[str]:
    """Give the one modality without columns whose medium takes what is left over its columns.

    Args:
        found: Modality → its columns; changed. Nothing is added if no column is left.
        media: Modality → how its items arrive.
        source: The source that is read.
        drop: Modality → columns that it does not take, comma-separated.
        earlier: Modality → the columns of earlier sources: later ones are read for these.

    Returns:
        Notes for the user.

    Raises:
        DataError: Two modalities want what is left, or a column to drop isn't there.
    """
    if wrong := [m for m in drop if m not in media or not media[m].leftover]:
        raise DataError(
            f"columns can't be dropped from {wrong[0]}",
            "--drop is for a table, which takes all columns that nothing else uses.",
            path=source.path,
        )
    free = [m for m, how in media.items() if how.leftover and m not in found]
    if not free:
        return []
    modality, *others = free
    if others:
        raise missing_column(others[0], source.filled, sum(found.values(), []), source.path)
    if modality in earlier:
        found[modality] = [name for name in earlier[modality] if name in source.filled]
        return []
    dropped = names_in(drop.get(modality, ""), list(source.filled))
    for name in dropped:
        if name not in source.filled:
            raise no_column(f"--drop {modality}=", name, list(source.filled), source.path)
    # A split is never a property of the row, whether it is heeded or not.
    taken = {*source.used, *dropped, ""}
    left = [n for n in source.filled if n not in taken and n.lower() != "split"]
    odd = [name for name in left if not _has_values(name, source.rows)]
    columns = [name for name in left if name not in odd]
    if not columns:
        return []
    found[modality] = columns
    notes = [
        f"{modality} takes the {len(columns):,} columns that nothing else uses: {_said(columns)}. "
        f"To leave some out: --drop {modality}=NAME"
    ]
    if odd:
        notes.append(f"{modality} leaves out columns of lists or files: {_said(odd)}.")
    return notes


def _has_values(column: str, rows: Sequence[Row]) -> bool:
    """Whether the cells are values of their own: no list, no bytes, no file."""
    cells = (row.values.get(column) for row in rows)
    return not any(isinstance(one, list | bytes | Reference) for one in cells)


def _said(names: Sequence[str]) -> str:
    more = f", … ({len(names) - _SHOWN:,} more)" if len(names) > _SHOWN else ""
    return ", ".join(map(short, names[:_SHOWN])) + more
