"""`fusemix sample`: the bundled pairs as files of the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.errors import ConfigError


def sample(
    out: Annotated[Path, typer.Argument(help="The folder to make.")] = Path("sample"),
) -> None:
    """Copy the bundled sample: 1,516 textbook figures with descriptions, 11 MB.

    Examples:

        fusemix sample

        fusemix sample data/figures
    """
    from fusemix_starter import sample_path

    if out.exists():
        raise ConfigError(f"{out} exists already.", "Name another: fusemix sample FOLDER")
    shutil.copytree(sample_path().parent, out)
    typer.echo(f"{out / 'pairs.csv'}: image, text, caption, split, …")
    typer.echo(
        "Next: fusemix align --a efficientnet-lite0 --b minilm "
        f"--data {out / 'pairs.csv'} --split-column split"
    )
