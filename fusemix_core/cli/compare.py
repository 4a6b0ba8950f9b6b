"""`fusemix compare`: runs on the same test items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN…", help="Folders of two runs or more.")
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page, with where each wins.", rich_help_panel=o.OUTPUT
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """Compare runs on the test items that they share: who is ahead, by how much, and where.

    Nothing is encoded: the ranks are read that `fusemix align` wrote of the test rows, or the
    predictions that `fusemix fuse` wrote. Differences have paired intervals. Runs that were tested
    on other rows are refused.

    Examples:

        fusemix compare runs/1 runs/2

        fusemix compare runs/1 runs/2 runs/3 --html compare.html

        fusemix compare runs/1 runs/2 --json
    """
    from fusemix_core.cli.show import show_sections
    from fusemix_core.jobs import compare as job

    found = job.compare(runs)
    if html is not None:
        found.write_page(html)
    if json:
        print_json(found.as_dict())
        return
    show_sections(found.sections())
    if html is not None:
        out.print()
        out.print(Text(f"page:    {html}"), soft_wrap=True)
