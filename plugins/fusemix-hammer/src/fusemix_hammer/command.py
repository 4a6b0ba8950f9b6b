"""`fusemix hammer-data`: fakes made of real pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, SplitOptions, grouped

Real = Annotated[float, typer.Option("--real", help="The share of rows that stay real.")]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Rows at most, drawn at random. [all]")
]
Hard = Annotated[
    str | None,
    typer.Option(
        "--hard",
        metavar="COLUMN",
        help="A swapped text is of a row with the same value, such as one of the same book.",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep", metavar="COLUMN", help="A column to copy, such as the licence. Repeatable."
    ),
]
Words = Annotated[int, typer.Option("--words", help="Texts are cut after so many words.")]
Size = Annotated[int, typer.Option("--size", help="Pixels of an image's side.")]
Quality = Annotated[int, typer.Option("--quality", help="Of WebP, 1 to 100, for every image.")]


@grouped
def hammer_data(
    out: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    data: DataOptions,
    splits: SplitOptions,
    real: Real = 0.3333,
    limit: Limit = None,
    hard: Hard = None,
    keep: Keep = None,
    words: Words = 30,
    size: Size = 256,
    quality: Quality = 90,
    seed: o.Seed = None,
) -> None:
    """Make fakes of real pairs of image and text: swapped texts, replaced words, pasted and altered
    regions. OUT gets images and pairs.csv, a table with the changes of each row.

    Every image is cut, scaled and compressed alike, changed or not. Whatever a fake is made of
    comes from its own split.

    Examples:

        fusemix hammer-data fakes --data pairs.csv --split-column split --hard book

        fusemix hammer-data fakes --data pairs.csv --group-by page --keep licence
    """
    from fusemix_core.cli.console import Notes
    from fusemix_core.config import DataConfig, from_dict
    from fusemix_core.errors import ConfigError
    from fusemix_hammer.building import Build, build

    table = data.table() | splits.table()
    if not table.get("source"):
        raise ConfigError("No data given.", "Add --data PATH.")
    how = Build(
        real=real,
        limit=limit or 0,
        hard=hard or "",
        keep=tuple(keep or ()),
        words=words,
        size=size,
        quality=quality,
        seed=seed or 0,
    )
    counts = build(from_dict(DataConfig, table, "data."), out, how, Notes())
    for kinds, count in sorted(counts.items(), key=lambda one: -one[1]):
        typer.echo(f"{count:>7,}  {kinds.replace(';', ' + ')}")
    typer.echo(f"{out / 'pairs.csv'}: {sum(counts.values()):,} rows")
    typer.echo(
        "Next: fusemix fuse --task manipulation -e image=efficientnet-lite0 -e text=minilm "
        f"--data {out / 'pairs.csv'} --split-column split --group-by group"
    )
