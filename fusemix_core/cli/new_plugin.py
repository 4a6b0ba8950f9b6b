"""`fusemix new-plugin`: a package of your own, to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli.console import out as console
from fusemix_core.errors import ConfigError
from fusemix_core.specs import KINDS


def new_plugin(
    name: Annotated[
        str,
        typer.Argument(
            help="Of the pip package. Its encoder or component has the same name without a leading "
            "'fusemix-'."
        ),
    ],
    modality: Annotated[
        str | None, typer.Option(help="image, text, audio, or any other word of small letters.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(help=f"encoder, generator, {', '.join(k for k in KINDS if k != 'artefact')}."),
    ] = "encoder",
    out: Annotated[Path, typer.Option(help="The folder in which to make it.")] = Path(),
    takes: Annotated[
        str | None,
        typer.Option(help="How items of another modality come: text or file. [text; video: file]"),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(help="Of a generator: the encoder whose latents condition it. [minilm]"),
    ] = None,
) -> None:
    """Write a complete plugin with one encoder, generator or component, which works and passes its
    tests.

    Examples:

        fusemix new-plugin fusemix-birds --modality audio

        fusemix new-plugin fusemix-proteins --modality protein --out ~/code

        fusemix new-plugin fusemix-vicreg --kind objective

        fusemix new-plugin fusemix-sketch --kind generator --space minilm
    """
    from fusemix_core.scaffold import write_component, write_generator, write_plugin

    if space and kind != "generator":
        raise ConfigError(f"Only a generator has a --space, not a {kind}.", "Leave it out.")
    if kind == "encoder":
        if modality is None:
            raise ConfigError("Which modality does the encoder read?", "Example: --modality image")
        made = write_plugin(name, modality, out.expanduser(), takes=takes)
    elif modality or takes:
        raise ConfigError(f"A {kind} has no --modality and no --takes.", "Leave them out.")
    elif kind == "generator":
        made = write_generator(name, out.expanduser(), space=space or "minilm")
    else:
        made = write_component(name, kind, out.expanduser())
    _show_next(made.folder, made.use)


def _show_next(folder: Path, last: str) -> None:
    """The commands that come next, `last` at the end."""
    console.print(f"Wrote {folder}. Next:", highlight=False, markup=False, soft_wrap=True)
    for command in (f"cd {folder} && pip install -e '.[test]'", "pytest", last):
        console.print(f"    {command}", highlight=False, markup=False, soft_wrap=True)
