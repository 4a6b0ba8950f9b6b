"""`fusemix mteb`: measure a model on tasks of MTEB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import err, print_json, print_table
from fusemix_core.errors import ArtefactError, ConfigError, UnknownNameError

if TYPE_CHECKING:
    from fusemix_mteb.model import FusemixModel


def mteb(
    model: o.Model,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", metavar="TASK", help="A task of mteb.")
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="All its tasks that the model can do."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of mteb's results. [MTEB_CACHE or ~/.cache/mteb]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model, in the results.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Measure again what is in the results.")] = False,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Measure a model on tasks of MTEB, MIEB and MAEB. mteb fetches them from the hub.

    Tasks that the model can't do are named and left out. Retrieval is scored by the model's own
    scorer.

    Examples:

        fusemix mteb runs/1 -t Flickr30kT2IRetrieval

        fusemix mteb runs/1 -b "MIEB(lite)" --out results/
    """
    from mteb import ResultCache, evaluate

    from fusemix_mteb.model import FusemixModel

    tasks = find_tasks(task or [], benchmark or [])
    wrapped = FusemixModel(*_loaded(model, name, device, encoder))
    able = able_tasks(wrapped, tasks)
    cache = ResultCache(out)
    found = evaluate(
        wrapped,
        able,
        cache=cache,
        overwrite_strategy="always" if overwrite else "only-missing",
        raise_error=False,
        show_progress_bar=not json,
    )
    rows = [(result.task_name, float(result.get_score())) for result in found.task_results]
    failed = {error.task_name: error.exception for error in found.exceptions or []}
    if json:
        print_json({"scores": dict(rows), "failed": failed, "results": str(cache.cache_path)})
    else:
        print_table(["task", "main score"], [[name, f"{score:.4f}"] for name, score in rows])
        err.print(f"results: {cache.cache_path}", soft_wrap=True)
        for one, why in failed.items():
            err.print(f"failed:  {one}: {why}", soft_wrap=True, markup=False)
    if failed:
        raise typer.Exit(1)


def find_tasks(tasks: Sequence[str], benchmarks: Sequence[str]) -> list[Any]:
    """mteb's tasks by their names and those of benchmarks.

    Raises:
        ConfigError: none is named.
        UnknownNameError: mteb has no task or benchmark of a name.
    """
    from mteb import get_benchmark, get_task

    if not tasks and not benchmarks:
        raise ConfigError(
            "No task is named.",
            "Add -t TASK or -b BENCHMARK. `mteb available-tasks` and `mteb available-benchmarks` "
            "list them.",
        )
    found = []
    try:
        found += [get_task(name) for name in tasks]
        found += [one for name in benchmarks for one in get_benchmark(name).tasks]
    except KeyError as error:
        message = str(error.args[0] if error.args else error)
        raise UnknownNameError(message, "`mteb available-tasks` lists the tasks.") from None
    return list({one.metadata.name: one for one in found}.values())


def able_tasks(model: FusemixModel, tasks: Iterable[Any]) -> list[Any]:
    """The tasks whose modalities the model has; the others are named.

    Raises:
        ConfigError: there are none.
    """
    able, has = [], set(model.modalities)
    for task in tasks:
        if lacks := sorted(set(task.metadata.modalities) - has):
            err.print(f"left out: {task.metadata.name} needs {', '.join(lacks)}", soft_wrap=True)
        else:
            able.append(task)
    if not able:
        raise ConfigError(
            "The model can do none of these tasks.", f"It has {', '.join(sorted(has))}."
        )
    return able


def _loaded(
    path: str | Path, name: str | None, device: str | None, encoder: list[str] | None
) -> tuple[Any, str, str]:
    """The model, its name, and the first digits of its weights' digest as its revision."""
    from fusemix_core.runs.models import load_model, model_of

    fused = load_model(path, device or "auto", o.key_values(encoder, "--encoder"))
    inside = Path(model_of(path))
    config = inside / "config.json"
    try:
        revision = hashlib.sha256(config.read_bytes()).hexdigest()[:16] if config.is_file() else "1"
    except OSError as error:
        raise ArtefactError(f"{config} can't be read: {error}") from error
    whole = Path(path).resolve().name if config.is_file() else str(path)
    return fused, name or whole, revision
