"""`fusemix convert-weights`: pickled weights as safetensors, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert_weights(
    name: Annotated[
        str, typer.Argument(help="A registered encoder, hf:NAME, st:NAME, or one of them @FOLDER.")
    ],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
) -> None:
    """Convert a model that has only pytorch_model.bin to safetensors, which is all that is read.

    Its weights are downloaded at the pinned revision, or read from NAME@FOLDER, and no code in them
    is run. Config, tokenizer and processor are copied beside them.

    Examples:

        fusemix convert-weights hf:facebook/hubert-base-ls960 models/hubert

        fusemix convert-weights hf:mine@downloads/old-model models/new-model
    """
    from fusemix_hf.convert import convert, source_of

    base, source = source_of(name)
    folder = convert(source, folder)
    typer.echo(f"{base}@{folder}")
    typer.echo(f"Use it by this name, for example: fusemix encoders check {base}@{folder}")
