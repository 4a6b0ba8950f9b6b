"""`fusemix data`: data sets, before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes, out, print_error, print_json, print_table, progress
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    FactOptions,
    SplitOptions,
    grouped,
)
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.check_data import DataCheck

app = typer.Typer(no_args_is_help=True, help="Data sets, before anything is encoded.")


@app.callback()
def _data() -> None:
    """Data sets, before anything is encoded."""


@app.command("check")
@grouped
def check(
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    encoders: EncoderOptions,
    path: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="The data, as --data takes them.")
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A modality of the rows; repeat it. [what is found]"),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Decode all items, not 1,000 of each modality.")
    ] = False,
    seed: o.Seed = None,
    json: o.Json = False,
) -> None:
    """Look over a data set: what is in it, what is not read and why, and what looks wrong.

    Counts items by type and split, repeats, items that splits share, texts that look like none,
    and black or silent items. Nothing is encoded. Exit code 2 if a run would fail on the data.

    Examples:

        fusemix data check pairs.csv

        fusemix data check photos/ --all --json

        fusemix data check reports.csv --a efficientnet-lite0 --b minilm \\
            --group-by patient
    """
    table = {**data.table(), **splits.table(), **facts.table()}
    table["source"] = [*(path or ()), *table.get("source", ())]
    if not table["source"]:
        raise ConfigError("No data given.", "Example: fusemix data check pairs.csv")
    found = _checked(table, encoders.names(), modality or (), all_, seed or 0)
    notes = Notes()
    notes(found.notices.summary(table["source"]))
    for warning in found.notices.warnings:
        notes(warning)
    if json:
        print_json(found.as_dict())
    else:
        show(found)
    if found.problems:
        raise typer.Exit(2)


def _checked(
    table: dict[str, Any],
    encoders: dict[str, str],
    modalities: Sequence[str],
    all_: bool,
    seed: int,
) -> DataCheck:
    """What is found in the data of a table of `DataConfig`, with a bar while it decodes."""
    from fusemix_core.config import DataConfig, from_dict
    from fusemix_core.jobs.check_data import SAMPLE, check_data
    from fusemix_core.runs.config import resolve_encoders

    config, specs = from_dict(DataConfig, table, "data"), resolve_encoders(encoders)
    sample = None if all_ else SAMPLE
    with progress("items") as bar:
        tasks: dict[str, Any] = {}

        def step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"Decode {name}", total=total, note="")
            bar.update(tasks[name], completed=done)

        return check_data(config, specs, modalities, sample=sample, seed=seed, progress=step)


def show(found: DataCheck) -> None:
    """The findings as tables."""
    print_table(
        ["modality", "type", "items", *found.pairs],
        [
            [modality, kind, counts["all"], *(counts[split] for split in found.pairs)]
            for modality, types in found.items.items()
            for kind, counts in types.items()
        ]
        + [["pairs", "", sum(found.pairs.values()), *found.pairs.values()]],
    )
    if found.unread:
        print_table(
            ["count", "counts as bad", "not read because", "for example"],
            [[u.count, "yes" if u.bad else "no", u.reason, u.example] for u in found.unread],
            title="\nNot read",
        )
    rows = [[f.what, f.modality, f.count, f.example] for f in found.findings]
    rows += [
        [f"items in {splits}", modality, count, ""]
        for splits, shared in found.overlaps.items()
        for modality, count in shared.items()
    ]
    if rows:
        print_table(["finding", "modality", "count", "for example"], rows, title="\nFindings")
    tried = ", ".join(f"{count:,} {modality}" for modality, count in found.decoded.items())
    out.print(f"\nDecoded: {tried or 'nothing'}." + ("" if found.problems else " A run can start."))
    for problem in found.problems:
        print_error(problem, "")
