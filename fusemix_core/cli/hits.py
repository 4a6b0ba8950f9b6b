"""Results of a search on the terminal, and as a contact sheet."""

from __future__ import annotations

import os
import tempfile
import webbrowser
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fusemix_core.data.media import Shown
    from fusemix_core.reports.sheet import SheetHit
    from fusemix_core.reranked import RerankModel


@dataclass(frozen=True)
class AskedOptions:
    """What is asked for: `--to`, `--from`, `--count`, `--show`, `--where`."""

    to: Annotated[str | None, typer.Option("--to", help="Modality to search in.")] = None
    from_: Annotated[str | None, typer.Option("--from", help="Modality of the query.")] = None
    count: Annotated[int, typer.Option("-k", "--count", min=1, help="How many to show.")] = 10
    show: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Show this column of the data beside each item. [its text, in an index or the "
            "run's own data]",
        ),
    ] = None
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help='Of an index: only items whose columns pass, such as "year > 2020 and kind = '
            "'map'\".",
        ),
    ] = None


@dataclass(frozen=True)
class SheetOptions:
    """A contact sheet of the results: `--html`, `--open`."""

    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of the results.")
    ] = None
    open_: Annotated[bool, typer.Option("--open", help="Open the contact sheet.")] = False

    @property
    def wanted(self) -> bool:
        """Whether a sheet is asked for."""
        return self.html is not None or self.open_

    def write(self, asked: Shown, hits: list[SheetHit], searched: int) -> None:
        """Write the sheet, in a new temporary folder if no file is named."""
        from fusemix_core.cli.console import err
        from fusemix_core.reports.sheet import write_sheet

        file = self.html or Path(tempfile.mkdtemp(prefix="fusemix-")) / "search.html"
        write_sheet(file, asked, hits, searched)
        err.print(f"sheet:   {file}", soft_wrap=True)
        if self.open_:
            webbrowser.open(file.absolute().as_uri())


@dataclass(frozen=True)
class Line:
    """A result as the terminal shows it."""

    rank: int
    score: float
    item: str
    columns: Iterable[Any] = ()


def print_hits(
    lines: Iterable[Line], inline: bool, sources: Sequence[str], searched: int, anew: int = 0
) -> None:
    """A line each; paths whole, and links that a terminal can open.

    Args:
        lines: The results, the best first.
        inline: Whether items are texts, not files.
        sources: Of the data; see `near`.
        searched: How many items were searched.
        anew: How many of the first results a re-ranker has ordered; see `anew_of`.
    """
    from rich.text import Text

    from fusemix_core.cli.console import out, shorten

    for one in lines:
        line = Text(f"{one.rank:3}  {one.score:.3f}  ")
        if inline:
            line.append(shorten(one.item))
        else:
            path = Path(one.item)
            line.append(
                near(one.item, sources), f"link {path.absolute().as_uri()}" * path.is_file()
            )
        for value in one.columns:
            if value not in (None, ""):
                line.append(f"  {shorten(str(value), 60)}", "dim")
        out.print(line, soft_wrap=True)
    ordered = f"; the first {anew} ranked anew, with the model's scores" if anew else ""
    out.print(f"{searched:,} items searched{ordered}", style="dim")


def anew_of(reranker: RerankModel | None, query: str, target: str) -> int:
    """How many of the first results a re-ranker orders in this direction."""
    return reranker.top_k if reranker is not None and reranker.weight(query, target) else 0


def near(path: str, sources: Sequence[str]) -> str:
    """A path as it is written from the working folder, if it is in there, or from that of the data.
    Any other is whole."""
    places = [os.path.abspath(one) for one in sources]
    folders = [one if os.path.isdir(one) else os.path.dirname(one) for one in places]
    for folder in (os.getcwd(), *folders) if os.path.isabs(path) else ():
        inside = os.path.relpath(path, folder)
        if not inside.startswith(os.pardir):
            return inside
    return path
