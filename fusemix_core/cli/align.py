"""`fusemix align`: from pairs to a fused model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.config import read_toml
from fusemix_core.errors import ConfigError
from fusemix_core.launch import launched


def align(
    a: o.A = None,
    b: o.B = None,
    encoder: o.Encoders = None,
    view: o.Views = None,
    data: o.Data = None,
    validation: o.Validation = None,
    test: o.Test = None,
    column: o.Columns = None,
    split_column: o.SplitColumn = None,
    group_by: o.GroupBy = None,
    validation_fraction: o.ValidationFraction = None,
    test_fraction: o.TestFraction = None,
    max_bad: o.MaxBad = None,
    allow_outside: o.AllowOutside = None,
    recipe: Annotated[
        str | None, typer.Option(help="A named method, or ./file.py:function. [fusemix]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a recipe's setting, e.g. training.epochs=20.",
        ),
    ] = None,
    config: o.ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [runs/DATE-TIME]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: o.Seed = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    store_dtype: o.StoreDtype = None,
    encode_batch: o.EncodeBatch = None,
    backend: o.Backend = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    json: o.Json = False,
) -> None:
    """Align two or more frozen encoders on paired data.

    Encodes each item once, fits adapters on the cached latents, chooses on the validation split,
    measures once on the test split, and saves a fused model and a report.

    Examples:

        fusemix align --a dinov2 --b bge-large --data pairs.csv

        fusemix align --a efficientnet-lite0 --b minilm --data photos/ --out runs/photos --dry-run

        fusemix align -e image=dinov2 -e text=bge-large -e audio=clap --data triples.parquet

        fusemix align --a dinov2 --b bge-large --view image=layers --data pairs.csv

        fusemix align --config run.toml --set training.epochs=20 --out runs/2
    """
    from fusemix_core.cli.show import show_plan, show_result
    from fusemix_core.flow.settings import build_config

    if resume and out is None:
        raise ConfigError("--resume needs the run's folder.", "Add --out runs/…")
    if resume and config is None and (out / "config.toml").exists():
        config = out / "config.toml"
    values = read_toml(config) if config else {}
    views = _table(values, "views", config)
    if named := o.encoder_values(a, b, encoder):
        values["encoders"] = named
        views = {}  # those of the file's encoders
    values["views"] = {**views, **o.key_values(view, "--view")}
    given = o.data_values(
        source=data,
        validation=validation,
        test=test,
        columns=column,
        split_column=split_column,
        group_by=group_by,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        max_bad=max_bad,
        allow_outside=allow_outside,
    )
    values["data"] = {**_table(values, "data", config), **given}
    top = {
        "recipe": recipe,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "store_dtype": store_dtype,
        "encode_batch": encode_batch,
        "backend": backend,
    }
    values |= {k: v for k, v in top.items() if v is not None}
    run_config, specs = build_config(values, set_ or [])

    from fusemix_core.flow.plan import make_plan

    plan = make_plan(run_config, specs)
    if dry_run:
        if launched().rank == 0:
            show_plan(plan, json)
        return
    if not json and launched().rank == 0:
        show_plan(plan, False)

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.flow.align import default_out, run_plan

    with ConsoleReporter() as reporter:
        result = run_plan(plan, out or default_out(), resume=resume, reporter=reporter)
    if result is not None:
        show_result(result, json)


def _table(values: dict[str, Any], name: str, config: Path | None) -> dict[str, Any]:
    """A table of the config file; `ConfigError` where that has something else by its name."""
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{config}: {name} must be a table, not {table!r}.", f"Write [{name}].")
    return table
