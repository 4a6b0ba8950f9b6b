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
    fixed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY",
            help="Keep its latents as embeddings, and fit the others to them.",
        ),
    ] = None,
    recipe: o.Recipe = None,
    set_: o.Set = None,
    select: o.Select = None,
    pairs: o.Pairs = None,
    config: o.ConfigFile = None,
    out: o.Out = None,
    resume: o.Resume = False,
    seed: o.Seed = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    store_dtype: o.StoreDtype = None,
    encode_batch: o.EncodeBatch = None,
    backend: o.Backend = None,
    dry_run: o.DryRun = False,
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

        fusemix align -e image=dinov2 -e text=bge-large --fixed text --data pairs.csv

        fusemix align --a dinov2 --b bge-large --data pairs.csv --select dpp --pairs 5000

        fusemix align --config run.toml --set training.epochs=20 --out runs/2
    """
    values = file_values(config, out, resume)
    if named := o.encoder_values(a, b, encoder):
        values["encoders"] = named
        values["views"] = {}  # those of the file's encoders
    values["views"] |= o.key_values(view, "--view")
    values["data"] |= o.data_values(
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
    top = {
        "recipe": recipe,
        "fixed": fixed or None,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "store_dtype": store_dtype,
        "encode_batch": encode_batch,
        "backend": backend,
    }
    values |= {k: v for k, v in top.items() if v is not None}
    from fusemix_core.runs.config import chosen_by

    carry_out(values, [*chosen_by(select, pairs), *(set_ or [])], out, resume, dry_run, json)


def file_values(config: Path | None, out: Path | None, resume: bool) -> dict[str, Any]:
    """The tables of a config file (of the run to resume, where none is named), `views` and `data`
    among them; `ConfigError` where these are no tables."""
    if resume and out is None:
        raise ConfigError("--resume needs the run's folder.", "Add --out runs/…")
    if resume and config is None and (out / "config.toml").exists():
        config = out / "config.toml"
    values = read_toml(config) if config else {}
    for name in ("views", "data"):
        values[name] = dict(_table(values, name, config))
    return values


def carry_out(
    values: dict[str, Any],
    overrides: list[str],
    out: Path | None,
    resume: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Show the plan of a run and, unless that is all, do it and show what it gave."""
    from fusemix_core.cli.show import show_plan, show_result
    from fusemix_core.runs.config import build_config

    config, specs = build_config(values, overrides)

    from fusemix_core.runs.plan import make_plan

    plan = make_plan(config, specs)
    if launched().rank == 0 and (dry_run or not json):
        show_plan(plan, json)
    if dry_run:
        return

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs.align import default_out, run_plan

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
