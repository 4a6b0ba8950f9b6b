"""`fusemix fuse`: from labelled rows to a predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.align import check_begun, config_tables, take_encoders
from fusemix_core.cli.console import Notes, out, print_json
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    EncodingOptions,
    FactOptions,
    OutputOptions,
    RunOptions,
    SplitOptions,
    given,
    grouped,
)
from fusemix_core.cli.running import carry_out, show_verdict, splits_line
from fusemix_core.config import parse_part, to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fusemix_core.jobs.fuse import FuseResult
    from fusemix_core.runs.fusing import FusePlan
    from fusemix_core.runs.reporter import Reporter

Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="COLUMN[:KIND]",
        help="The column to predict; several are labels. A kind (number, class, grid, mask) "
        "settles how it is read.",
        rich_help_panel=o.DATA,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="COLUMN",
        help="How long each row was followed, with --event.",
        rich_help_panel=o.DATA,
    ),
]
Event = Annotated[
    str | None,
    typer.Option(
        "--event",
        metavar="COLUMN",
        help="Whether the event came then (1, true, yes).",
        rich_help_panel=o.DATA,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="classify, multilabel, regress, ordinal, survive, box, tag, occupy, segment, match, "
        "or another of `fusemix recipes components --kind task`; with options "
        '"NAME KEY=VALUE". [auto: seen from the target]',
        rich_help_panel=o.METHOD,
    ),
]
FuserName = Annotated[
    str | None,
    typer.Option(
        "--fuser",
        metavar="NAME",
        help="How modalities are combined: one of `fusemix recipes components --kind fuser`, such "
        'as stack; with options "NAME KEY=VALUE". [auto: the best on validation]',
        rich_help_panel=o.METHOD,
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds",
        metavar="N",
        help="Measure by cross-validation, and fit to all rows. [the test split]",
        rich_help_panel=o.SPLITS,
    ),
]
Extends = Annotated[
    str | None,
    typer.Option(
        "--extends",
        metavar="RUN",
        help="A predictor that gets the modality of -e. Its others stay as they are.",
        rich_help_panel=o.METHOD,
    ),
]


@grouped
def fuse(
    encoders: EncoderOptions,
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    run: RunOptions,
    encoding: EncodingOptions,
    output: OutputOptions,
    target: Target = None,
    time: Time = None,
    event: Event = None,
    task: Task = None,
    fuser: FuserName = None,
    folds: Folds = None,
    extends: Extends = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
) -> None:
    """Predict something from several modalities. Any of them may be missing.

    Encodes each item once, fits fusers and baselines on the cached latents, chooses on the
    validation split, measures once on the test split, and saves a predictor and a report that says
    what each modality gives.

    Examples:

        fusemix fuse -e image=efficientnet-lite0 -e text=minilm --target category \\
            --data products.csv

        fusemix fuse -e image=efficientnet-lite0 -e table=columns --target price \\
            --data houses.csv --folds 5

        fusemix fuse -e rna=columns -e clinical=columns --column 'rna={a},{b}' \\
            --time months --event died --group-by patient --data patients.csv

        fusemix fuse -e image=efficientnet-lite0 -e text=minilm --task match \\
            --data pairs.csv

        fusemix fuse --extends runs/1 -e audio=whisper-tiny --data recorded.csv
    """
    values = config_tables(run, data.table() | splits.table() | facts.table(), encoding)
    take_encoders(values, encoders.names(), encoders.views())
    check_begun(run, values, "encoders")
    values |= given(
        task=None if task is None else to_dict(parse_part(task)),
        fuser=None if fuser is None else to_dict(parse_part(fuser)),
        folds=folds,
        device=device,
        dtype=dtype,
        extends=extends,
    )
    from fusemix_core.runs.fusing import target_facts

    if target or time or event or not {"targets", "extends"} & values.keys():
        name = values.get("task", {}).get("name")
        columns, values["targets"] = target_facts(tuple(target or ()), time, event, name)
        values["data"]["facts"] = {**values["data"].get("facts", {}), **columns}
    _carry_out(values, run, output)


def _carry_out(values: Mapping[str, Any], run: RunOptions, output: OutputOptions) -> None:
    """Show the plan of a run and, unless `--dry-run` is given, run it and show its results."""
    from fusemix_core.runs.fusing import build_fuse_config, make_fuse_plan

    notes, former = Notes(), None
    if values.get("extends"):
        from fusemix_core.jobs.grow import growth

        config, specs, former = growth(values)
    else:
        config, specs = build_fuse_config(values)
    plan = make_fuse_plan(config, specs, tell=notes)

    def work(folder: Path, reporter: Reporter) -> FuseResult:
        from fusemix_core.jobs.fuse import run_fuse

        return run_fuse(plan, folder, resume=run.resume, reporter=reporter, former=former)

    carry_out(
        run,
        output,
        notes,
        ["fusemix", "fuse"],
        show_plan=lambda json: show_fuse_plan(plan, json),
        work=work,
        show_result=show_fuse_result,
    )


def show_fuse_plan(plan: FusePlan, json: bool) -> None:
    """Print the plan of a run."""
    from fusemix_core.cli.show import show_encoders

    if json:
        print_json(plan.as_dict())
        return
    show_encoders(plan.encoders.values())
    splits = splits_line(plan.dataset)
    folds = f", {plan.config.folds} folds" if plan.config.folds else ""
    out.print(f"rows:    {splits}{folds}; {len(plan.dataset.rejected):,} entries rejected")
    task = f"task:    {plan.targets.part.name}, because {plan.targets.reason}"
    out.print(Text(task), soft_wrap=True)
    out.print(f"fuser:   {plan.config.fuser.name}")


def show_fuse_result(found: FuseResult, json: bool) -> None:
    """Print the results of a run, where they are, and the next commands."""
    from fusemix_core.cli.show import show_sections

    folder = found.folder
    if json:
        report = {"model": str(folder.model), "report": str(folder.report)}
        print_json({**found.results, **report})
        return
    show_sections(found.sections)
    show_verdict(folder, found.results["verdict"])
    if (count := found.results["doubtful"]) and not found.results.get("private"):
        file = folder.path / "doubtful.jsonl"
        out.print(f"doubt:   {count:,} rows contradict their target: {file}", soft_wrap=True)
    out.print()
    out.print("Predict new rows, or see what each modality gives:", style="bold")
    out.print(Text(f"fusemix predict {folder.path} --data new.csv --out predictions.csv"))
    out.print(Text(f"fusemix explain {folder.path}"))
