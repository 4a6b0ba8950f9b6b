"""Steps of all commands that make a run: show the plan, carry it out, show the results."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from fusemix_core.cli.console import GO_ON, Notes, out
from fusemix_core.cli.groups import OutputOptions, RunOptions
from fusemix_core.launch import launched

if TYPE_CHECKING:
    from fusemix_core.data.dataset import PairedDataset
    from fusemix_core.runs.folder import RunFolder
    from fusemix_core.runs.reporter import Reporter

R = TypeVar("R")


def carry_out(
    run: RunOptions,
    output: OutputOptions,
    notes: Notes,
    command: Sequence[str],
    *,
    show_plan: Callable[[bool], None],
    work: Callable[[Path, Reporter], R | None],
    show_result: Callable[[R, bool], None],
) -> None:
    """Show the plan of a run and, unless `--dry-run` is given, run it and show its results.

    Args:
        run, output: what the user asks for.
        notes: prints the notes.
        command: goes on with the run if `--out FOLDER --resume` are added; an interrupted run says
            so.
        show_plan, show_result: print the plan, and the results; given whether as JSON.
        work: carries out the plan in a folder.
    """
    from fusemix_core.runs.folder import RunFolder, default_out

    first, folder = launched().rank == 0, run.out or default_out()
    if first:
        RunFolder(folder).check(run.resume)
    if first and (output.dry_run or not output.json):
        show_plan(output.json)
    if output.dry_run:
        return
    from fusemix_core.cli.progress import ConsoleReporter

    try:
        with ConsoleReporter(notes) as reporter:
            found = work(folder, reporter)
    except KeyboardInterrupt as stop:
        if (folder / "config.toml").exists():
            stop.add_note(f"{GO_ON}{shlex.join([*command, '--out', str(folder), '--resume'])}")
        raise
    if found is not None:
        show_result(found, output.json)


def splits_line(dataset: PairedDataset) -> str:
    """`80 train, 10 validation, 10 test`."""
    return ", ".join(f"{len(rows):,} {name}" for name, rows in dataset.splits.items())


def show_verdict(folder: RunFolder, verdict: str) -> None:
    """Print the result of a run in one sentence, and where its model and its report are."""
    out.print()
    out.print(Text(verdict, style="bold"), soft_wrap=True)
    out.print()
    out.print(f"model:   {folder.model}", soft_wrap=True)
    out.print(f"report:  {folder.report}", soft_wrap=True)
