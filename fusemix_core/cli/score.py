"""`fusemix score`: how well the items of each row fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.cli.groups import DataOptions, grouped

if TYPE_CHECKING:
    from fusemix_core.jobs.score import Scored


@grouped
def score(
    model: o.Model,
    data: DataOptions,
    path: Annotated[
        list[str] | None, typer.Argument(metavar="PAIRS", help="The pairs, as --data takes them.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write a table: .csv, .tsv, .jsonl or .parquet. [the terminal shows a summary]",
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Score the pairs of a table: how well the items of each row fit.

    The table's columns stay. Added are the model's score, the cosine, the percentile of the score
    among random pairs of the run's validation split, and the rank of each item for the other among
    the items of the table. A row that can't be scored stays, with the problem beside it.

    Examples:

        fusemix score runs/1 pairs.csv --out scored.csv

        fusemix score runs/1 pairs.parquet --out scored.parquet --column text=alt

        fusemix score runs/1 pairs.csv --json
    """
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.data.original import SUFFIXES
    from fusemix_core.errors import ConfigError
    from fusemix_core.jobs import score as job
    from fusemix_core.runs.models import load_model

    if to is not None and to.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{to} is not a table.", f"Its name ends in {', '.join(SUFFIXES)}.")
    table: dict[str, Any] = {"max_bad": 1.0, **data.table()}
    table["source"] = [*(path or ()), *table.get("source", ())]
    if not table["source"]:
        raise ConfigError("No pairs given.", "Example: fusemix score runs/1 pairs.csv")
    config, validation = job.scored_data(model, table)
    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    how: dict[str, Any] = {"validation": validation, "keep": json and to is None}
    with ConsoleReporter() as reporter:
        found = job.score(fused, config, to, reporter=reporter, **how)
    if json:
        print_json({**found.as_dict(), **({"table": str(to)} if to else {})})
    else:
        _show(found, to)


def _show(found: Scored, to: Path | None) -> None:
    """The counts, the worst rows, and where all are."""
    bad = f", {found.bad:,} could not be" if found.bad else ""
    out.print(f"{found.scored:,} of {found.rows:,} rows scored{bad}.")
    if found.worst:
        rows = [[f"{file}, row {row}", f"{value:.3f}", percentile]
                for value, file, row, percentile in found.worst]  # fmt: skip
        print_table(["lowest scores", "score", "percentile"], rows)
        out.print(f"Percentiles are among {found.percentile_of}.", style="dim")
    if to is not None:
        out.print(Text(f"table:   {to}"), soft_wrap=True)
