"""`fusemix new-plugin`: a package of your own, to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli.console import out as console


def new_plugin(
    name: Annotated[str, typer.Argument(help="Of the pip package; its encoder is called so too.")],
    modality: Annotated[
        str, typer.Option(help="image, text, audio, or any other word of small letters.")
    ],
    out: Annotated[Path, typer.Option(help="The folder in which to make it.")] = Path(),
    takes: Annotated[
        str | None,
        typer.Option(help="How items of another modality come: text or file. [text; video: file]"),
    ] = None,
) -> None:
    """Write a complete plugin with one encoder, which works and passes its tests.

    Examples:

        fusemix new-plugin fusemix-birds --modality audio

        fusemix new-plugin fusemix-proteins --modality protein --out ~/code
    """
    from fusemix_core.scaffold import write_plugin

    made = write_plugin(name, modality, out.expanduser(), takes=takes)
    console.print(f"Wrote {made.folder}. Next:", highlight=False, markup=False, soft_wrap=True)
    for command in (
        f"cd {made.folder} && pip install -e '.[test]'",
        "pytest",
        f"fusemix encoders check {made.encoder}",
    ):
        console.print(f"    {command}", highlight=False, markup=False, soft_wrap=True)
