"""`fusemix index send`: an index to an engine that exists already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli import options as o


def send(
    folder: Annotated[Path, typer.Argument(help="The folder of the index.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="lance://, qdrant://, pgvector://, parquet://"),
    ],
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
) -> None:
    """Write an index to Lance, Qdrant, PostgreSQL or a Parquet file.

    Vectors are written so that an inner product ranks as the model's scorer. A table of that
    name is replaced.

    Examples:

        fusemix index send photos.index --to lance://photos.lance

        fusemix index send photos.index --to qdrant://localhost:6333/photos
    """
    from fusemix_core.cli.index import open_collection
    from fusemix_stores.sending import send as write

    opened = open_collection(folder, encoder, device)
    lines = write(opened, to)
    typer.echo(f"{len(opened):,} items written. To search them:")
    typer.echo("\n".join(lines))
