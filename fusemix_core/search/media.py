"""The content of an item, found by its record only: no path comes from outside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fusemix_core.data.near import within
from fusemix_core.data.references import CellReference, SliceReference
from fusemix_core.errors import DataError
from fusemix_core.search.items import Record


def content_of(record: Record, roots: Sequence[str], outside: bool) -> Path | str | bytes:
    """The path of an item's file, its text, or its bytes if it is a part of a file.

    Args:
        record: Of the item.
        roots: Folders in which files may lie.
        outside: Whether they may lie elsewhere, too.

    Raises:
        DataError: The file is gone, or isn't where files may lie.
    """
    if record.place == "":
        return record.item
    if record.place is None:
        raise DataError(f"{record.item} was given in memory, and can't be read again.")
    real = os.path.realpath(record.place)
    if not outside and not any(within(root, real) for root in roots):
        raise DataError(f"{record.item} is outside the folders of the data.")
    if not os.path.exists(real):
        raise DataError(f"{record.item} is gone.", "Update the index: fusemix index update")
    if record.start is None:
        return Path(real)
    try:
        return _part(record, real)
    except OSError as error:
        raise DataError(f"{record.item} can't be read: {error}") from error


def _part(record: Record, real: str) -> bytes:
    """The bytes of a member of an archive, or of a cell of a table."""
    start = record.start or 0
    if record.size is not None:
        return SliceReference(real, start, record.size, record.item).read()
    from fusemix_core.data.parquet import ParquetCells
    from fusemix_core.data.saved import SavedCells

    cells = SavedCells(real) if os.path.isdir(real) else ParquetCells(real)
    column = record.item.rpartition("#")[2].rpartition("/")[0]
    return CellReference(cells, column, start).read()
