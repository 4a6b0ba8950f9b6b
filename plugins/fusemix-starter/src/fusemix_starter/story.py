"""`fusemix demo`: the whole story on the bundled sample, by the commands that a user would type."""

from __future__ import annotations

import os
import shlex
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli.console import notes_once
from fusemix_starter.command import sample

QUERIES = ("a map of the world", "a molecule", "people at work")


def demo(
    out: Annotated[Path, typer.Argument(help="The folder to make.")] = Path("demo"),
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the report.")] = True,
) -> None:
    """From nothing to a search: the sample, a first model, three searches, the report.

    It takes two minutes on two cores. No account, no hub. Each command is shown before it runs.
    Finished steps are not repeated.

    Examples:

        fusemix demo

        fusemix demo figures --no-open
    """
    run, manifest = out / "run", out / "sample" / "pairs.csv"
    report = run / "report.html"
    if not manifest.exists():
        typer.echo(f"$ fusemix sample {shlex.quote(str(manifest.parent))}")
        sample(manifest.parent)
    if not report.exists():
        resume = ["--resume"] if (run / "config.toml").exists() else []
        _call(
            *("align", "--a", "efficientnet-lite0", "--b", "minilm", "--data", manifest),
            *("--split-column", "split", "--out", run, *resume),
        )
    with notes_once():
        for query in QUERIES:
            _call("search", run, "--data", manifest.parent / "images", "-k", 3, query)
    typer.echo(f"\nThe report: {report}")
    if show and has_screen():
        webbrowser.open(report.resolve().as_uri())


def has_screen() -> bool:
    """Whether a browser that is opened would have a window, and somebody looks."""
    windows = sys.platform in ("win32", "darwin")
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and bool(windows or display)


def _call(*words: object) -> None:
    """Show a command and run it in this process."""
    from typer.main import get_command

    from fusemix_core.cli.app import app

    arguments: Sequence[str] = [str(word) for word in words]
    typer.echo(f"\n$ fusemix {shlex.join(arguments)}")
    get_command(app).main(arguments, prog_name="fusemix", standalone_mode=False)
