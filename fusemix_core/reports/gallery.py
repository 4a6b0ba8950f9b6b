"""A page of cases to look at: groups of items, each with a plain reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusemix_core.data.media import Shown
from fusemix_core.reports.render import style_sheet, templates
from fusemix_core.runs.folder import write_text
from fusemix_core.sections import Section, Tile

MOST = 48
"""Cases of a group that are shown: a page of more is slow to open."""


@dataclass(frozen=True)
class CaseItem:
    """An item of a case: what it is there, and how it looks."""

    label: str
    shown: Shown


@dataclass(frozen=True)
class Case:
    """A finding: its place in the data, the reason, and its items."""

    place: str
    reason: str
    items: Sequence[CaseItem]


@dataclass(frozen=True)
class CaseGroup:
    """Cases of one kind; each takes the whole width of the page if the group is `wide`."""

    title: str
    text: str
    cases: Sequence[Case]
    wide: bool = False


@dataclass(frozen=True)
class GalleryPage:
    """A page: what it is about, a few numbers, tables, and the cases.

    Example:
        page = GalleryPage("Near-duplicates", "Two groups.", groups=[CaseGroup("", "", cases)])
        write_gallery("page.html", page)
    """

    title: str
    summary: str = ""
    tiles: Sequence[Tile] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    groups: Sequence[CaseGroup] = field(default_factory=list)


def write_gallery(path: str | Path, page: GalleryPage) -> Path:
    """Write the page to `path`, whole or not at all, and return the path. Like the report it has
    neither scripts nor links; small copies of the images are in it."""
    path, here = Path(path), templates()
    path.parent.mkdir(parents=True, exist_ok=True)
    template = here.get_template("gallery.html.j2")
    write_text(path, template.render(page=page, style=style_sheet(here)))
    return path
