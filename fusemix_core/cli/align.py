"""`fusemix align`: from pairs to a fused model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli import running
from fusemix_core.cli.console import Notes, print_error
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    EncodingOptions,
    EvaluatorOptions,
    FactOptions,
    OutputOptions,
    RecipeOptions,
    RunOptions,
    SplitOptions,
    given,
    grouped,
)
from fusemix_core.config import DataConfig, from_dict, read_toml, to_dict
from fusemix_core.errors import ConfigError
from fusemix_core.launch import launched
from fusemix_core.registry import registry
from fusemix_core.userfile import in_file

if TYPE_CHECKING:
    from fusemix_core.jobs.run import RunResult
    from fusemix_core.runs.plan import Plan
    from fusemix_core.runs.reporter import Reporter

Fixed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODALITY",
        help="Keep its latents as embeddings, and fit the others to them.",
        rich_help_panel=o.METHOD,
    ),
]


@grouped
def align(
    encoders: EncoderOptions,
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    recipe: RecipeOptions,
    run: RunOptions,
    encoding: EncodingOptions,
    evaluators: EvaluatorOptions,
    output: OutputOptions,
    fixed: Fixed = None,
    correction: o.Corrections = None,
    select: o.Select = None,
    pairs: o.Pairs = None,
    budget: o.Budget = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
) -> None:
    """Align two or more frozen encoders on paired data.

    Encodes each item once, fits adapters on the cached latents, chooses on the validation split,
    measures once on the test split, and saves a fused model and a report.

    Examples:

        fusemix align --a efficientnet-lite0 --b minilm --data pairs.csv

        fusemix align --a dinov2 --b bge-large --data photos/ \\
            --out runs/photos --dry-run

        fusemix align -e image=dinov2 -e text=bge-large -e audio=clap \\
            --data triples.parquet

        fusemix align --a dinov2 --b bge-large --view image=layers \\
            --data pairs.csv

        fusemix align -e image=dinov2 -e text=bge-large --fixed text \\
            --data pairs.csv

        fusemix align --a dinov2 --b bge-large --data pairs.csv \\
            --select dpp --pairs 5000

        fusemix align --a dinov2 --b bge-large --data pairs.csv --budget 10m

        fusemix align --a dinov2 --b bge-large --data pairs.csv \\
            --evaluator ./mine.py:Hubs

        fusemix align --config run.toml --set training.epochs=20 --out runs/2
    """
    values = run_values(
        run, data.table() | splits.table() | evaluators.facts(facts.table()), recipe, encoding
    )
    take_encoders(values, encoders.names(), encoders.views())
    check_begun(run, values, "encoders")
    values |= given(fixed=fixed or None, device=device, dtype=dtype) | evaluators.table()
    values |= o.corrections(correction)
    from fusemix_core.runs.config import chosen_by

    overrides = [*chosen_by(select, pairs, budget), *recipe.overrides]
    carry_out(values, overrides, run, output, ["fusemix", "align"])


def run_values(
    run: RunOptions, data: dict[str, Any], recipe: RecipeOptions, encoding: EncodingOptions
) -> dict[str, Any]:
    """`config_tables` with the recipe."""
    return config_tables(run, data, encoding) | given(recipe=recipe.recipe)


def config_tables(
    run: RunOptions, data: dict[str, Any], encoding: EncodingOptions
) -> dict[str, Any]:
    """The tables of the config file (of the run to resume, if none is named), with the options that
    were given in their place, among them `data`, fields of `DataConfig`.

    Raises:
        ConfigError: If `views` or `data` of the file is not a table, or `--resume` has no `--out`.
    """
    config = run.config
    if run.resume:
        if run.out is None:
            raise ConfigError("--resume needs the run's folder.", "Add --out runs/…")
        if config is None and (run.out / "config.toml").exists():
            config = run.out / "config.toml"
    values = read_toml(config) if config else {}
    for name in ("views", "data"):
        values[name] = dict(_table(values, name, config))
    check_files(values, {} if data.get("reader") is None else data, config)
    if values["data"].get("base") and not {"source", "validation", "test"}.isdisjoint(data):
        values["data"] = to_dict(from_dict(DataConfig, values["data"], "data.").located())
    values["data"] |= data
    return values | given(seed=run.seed, private=run.private or None) | encoding.table()


def check_begun(run: RunOptions, values: dict[str, Any], needed: str) -> None:
    """Raise `ConfigError` if the run to resume is not there and `values` lack `needed`, without
    which no new run can begin either: the name of the folder is wrong."""
    if run.resume and run.out and not values.get(needed) and not (run.out / "config.toml").exists():
        from fusemix_core.saved.named import similar

        hint = "" if run.out.exists() else similar(run.out)
        raise ConfigError(f"There is no run in {run.out}.", hint or "Choose a run's folder.")


def check_files(values: dict[str, Any], data: dict[str, Any], config: Path | None) -> None:
    """Raise `ConfigError` if a config file names files of Python for `plugins` or the reader that
    this command line does not: they run because the user names them, never because a file does."""
    missing = [p for p in values.get("plugins", []) if p not in registry.files]
    again = " ".join(f"--plugin {shlex.quote(str(p))}" for p in missing)
    reader = values["data"].get("reader") if "reader" not in data else None
    name = reader.get("name") if isinstance(reader, dict) else reader
    if isinstance(name, str) and in_file(name):
        again += f" --reader {shlex.quote(name)}"
    if again:
        raise ConfigError(
            f"{config} was made with Python files that are only run if you name them.",
            f"If you trust them, add: {again.strip()}",
        )


def take_encoders(values: dict[str, Any], names: dict[str, str], views: dict[str, str]) -> None:
    """Put these encoders in the place of the file's, whose views then go with them."""
    if names:
        values["encoders"], values["views"] = names, {}
    values["views"] |= views


def carry_out(
    values: dict[str, Any],
    overrides: list[str],
    run: RunOptions,
    output: OutputOptions,
    command: list[str],
) -> None:
    """Show the plan of a run and, unless `--dry-run` is given, run it and show its results. If it
    is interrupted, the error has a note with the command that goes on with it: `command`, and the
    run's folder."""
    from fusemix_core.runs.config import build_config

    config, specs = build_config(values, overrides)

    from fusemix_core.runs.plan import make_plan

    notes = Notes()
    plan = make_plan(config, specs, tell=notes if launched().rank == 0 else None)

    def show(json: bool) -> None:
        from fusemix_core.cli import show

        show.show_plan(_probed(plan, notes) if output.dry_run else plan, json)

    def work(folder: Path, reporter: Reporter) -> RunResult | None:
        from fusemix_core.jobs.run import run_plan

        return run_plan(plan, folder, resume=run.resume, reporter=reporter)

    def report(result: RunResult, json: bool) -> None:
        from fusemix_core.cli.show import show_result

        show_result(result, json)
        report_failed(result)

    running.carry_out(run, output, notes, command, show_plan=show, work=work, show_result=report)


def _probed(plan: Plan, notes: Notes) -> Plan:
    """The plan with times that are measured, if they are unknown on this machine."""
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs.probe import probe

    with ConsoleReporter(notes) as reporter:
        return probe(plan, reporter)


def report_failed(result: RunResult) -> None:
    """Report the evaluators that failed; with any, end with exit code 1."""
    failed = result.results.get("failed", {})
    for name, message in failed.items():
        print_error(
            message,
            f"The model is saved. Mend the evaluator, then measure again: fusemix eval "
            f"{result.folder.path} --evaluator {name}",
        )
    if failed:
        raise typer.Exit(1)


def _table(values: dict[str, Any], name: str, config: Path | None) -> dict[str, Any]:
    """A table of the config file."""
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{config}: {name} must be a table, not {table!r}.", f"Write [{name}].")
    return table
