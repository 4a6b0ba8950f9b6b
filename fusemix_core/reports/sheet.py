"""The results of a search as one HTML file: a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusemix_core.data.media import Shown
from fusemix_core.reports.render import style_sheet, templates
from fusemix_core.runs.folder import write_text


@dataclass(frozen=True)
class SheetHit:
    """A hit as a sheet shows it: `item`, its path or text; `columns`, name → value."""

    rank: int
    score: float
    item: str
    shown: Shown
    columns: Mapping[str, str] = field(default_factory=dict)


def write_sheet(path: str | Path, query: Shown, hits: Sequence[SheetHit], searched: int) -> Path:
    """Write the sheet to `path`, whole or not at all, and return the path. Like the report it has
    neither scripts nor links; small copies of the pictures are in it.

    Args:
        query: What was asked.
        hits: The best first.
        searched: How many items were searched.
    """
    path, here = Path(path), templates()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = here.get_template("sheet.html.j2").render(
        query=query, hits=hits, searched=f"{searched:,}", style=style_sheet(here)
    )
    write_text(path, text)
    return path
