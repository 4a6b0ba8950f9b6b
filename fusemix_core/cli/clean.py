"""`fusemix clean`: rows of the data that are probably wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json, print_table, shorten
from fusemix_core.cli.groups import DataOptions, SplitOptions, grouped

if TYPE_CHECKING:
    from fusemix_core.jobs.clean import Cleaned

_SHOWN = 10


@dataclass(frozen=True)
class SuspectOptions:
    """Limits and the folder of findings: `--below`, `--threshold`, `--folds`, `--out`."""

    to: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="For suspect.csv and suspect.html.",
            rich_help_panel=o.OUTPUT,
        ),
    ] = Path("suspect")
    below: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="List rows that fit worse than this percentage of random pairs."
        ),
    ] = 80.0
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Similarity of near-duplicates.")
    ] = 0.95
    folds: Annotated[
        int,
        typer.Option(min=0, help="Fits that judge training rows; 0: the model judges them itself."),
    ] = 5

    def __post_init__(self) -> None:
        if self.folds == 1:
            raise typer.BadParameter("must be 0, or 2 or more.", param_hint="--folds")


@grouped
def clean(
    model: o.Model,
    data: DataOptions,
    splits: SplitOptions,
    suspects: SuspectOptions,
    encoder: o.ModelEncoders = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Find rows that are likely mispaired, near-duplicates, leaks between splits, and outliers.

    Without --data those of the model's run are looked through. Rows that the model was trained on
    are judged by fits that left them out. The output folder gets a table, suspect.csv, and a page
    to look at, suspect.html; each finding has a reason. Nothing is changed in the data.

    Examples:

        fusemix clean runs/1

        fusemix clean runs/1 --data new.csv --out suspect-new --below 50

        fusemix clean runs/1 --data pairs.csv --group-by patient --json
    """
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs import clean as job
    from fusemix_core.jobs.measured_data import data_table, measured_data, run_of
    from fusemix_core.runs.config import find_recipe
    from fusemix_core.runs.models import load_model

    given = data.table() | splits.table()
    what, run = measured_data(model, given, "all", seed), run_of(model)
    own = bool(run) and data_table(model, run, given)[1]
    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    with ConsoleReporter() as reporter:
        found = job.clean(
            fused,
            what.config,
            recipe=find_recipe(run["recipe"]) if "recipe" in run else None,
            own=own,
            folds=suspects.folds,
            below=suspects.below,
            threshold=suspects.threshold,
            seed=what.seed,
            reporter=reporter,
        )
    table, page = found.write(suspects.to)
    if json:
        print_json({**found.as_dict(), "table": str(table), "page": str(page)})
    else:
        _show(found, table, page)


def _show(found: Cleaned, table: Path, page: Path) -> None:
    """How many of each kind, the worst rows, and where all are."""
    from fusemix_core.runs.suspects import MISPAIRED

    print_table(["found", "rows"], [[kind, count] for kind, count in found.counts.items()])
    for pair, share in found.shares.items():
        if share is not None:
            out.print(f"{pair}: about {share:.1%} of the rows are mispaired, or fewer.")
    worst = [one for one in found.suspects if one.kind == MISPAIRED][:_SHOWN]
    if worst:
        out.print()
        rows = [[f"{one.file}, row {one.row}", f"{one.value:.0f}", shorten(one.item, 60)]
                for one in worst]  # fmt: skip
        print_table(["likely mispaired", "percentile", "item"], rows)
    out.print()
    out.print(Text(f"table:   {table}"), soft_wrap=True)
    out.print(Text(f"page:    {page}"), soft_wrap=True)
