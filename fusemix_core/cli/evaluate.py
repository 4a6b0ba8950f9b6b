"""`fusemix eval`: measure a fused model on data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import DataOptions, SplitOptions, grouped
from fusemix_core.errors import ConfigError


@dataclass(frozen=True)
class ZeroShotOptions:
    """Classification of items by the names of their classes."""

    classes: Annotated[
        Path | None, typer.Option(help="Class names, a JSON list or one a line: zero-shot.")
    ] = None
    templates: Annotated[
        Path | None, typer.Option(help="Prompts with {} for the class, one a line.")
    ] = None
    label_column: Annotated[str, typer.Option(help="Column of each item's class.")] = "label"
    modality: Annotated[str | None, typer.Option(help="What to classify.")] = None


Split = Annotated[
    str | None,
    typer.Option(help="train, validation, test or all. [test on the run's data, else all]"),
]


@grouped
def evaluate(
    model: o.Model,
    data: DataOptions,
    splits: SplitOptions,
    zero_shot: ZeroShotOptions,
    split: Split = None,
    encoder: o.ModelEncoders = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Measure a fused model: retrieval in all directions, or zero-shot classification.

    Without --data a run is measured again on its own test split; on other data all rows are used,
    unless a split is asked for.

    Examples:

        fusemix eval runs/1

        fusemix eval runs/1 --data other.csv --json

        fusemix eval runs/1 --data labelled.csv --classes classes.txt --templates prompts.txt
    """
    classes, templates = zero_shot.classes, zero_shot.templates
    if templates and not classes:
        raise ConfigError("--templates needs --classes.", "Add --classes classes.txt")
    from fusemix_core.jobs.measured_data import measured_data

    what = measured_data(model, data.table() | splits.table(), split, seed)
    if classes:
        from fusemix_core.evaluation.prompt_files import read_classes, read_templates

        names = read_classes(classes)
        prompts = read_templates(templates) if templates else None

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs import evaluate as job
    from fusemix_core.runs.models import load_model

    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    with ConsoleReporter() as reporter:
        if classes:
            found = job.classify(
                fused,
                what.config,
                names,
                prompts,
                label_column=zero_shot.label_column,
                split=split or "all",
                modality=zero_shot.modality,
                seed=what.seed,
                reporter=reporter,
            )
        else:
            found = job.evaluate(fused, what.config, what.split, seed=what.seed, reporter=reporter)
    _show(found, bool(classes), json)


def _show(found: dict[str, Any], zero_shot: bool, json: bool) -> None:
    from fusemix_core.cli.console import print_json
    from fusemix_core.cli.show import show_geometry, show_retrieval, show_zero_shot

    if json:
        print_json(found)
    elif zero_shot:
        show_zero_shot(found)
    else:
        show_retrieval(
            found["retrieval"], "Recall in percent, 95% intervals, by the model's scorer"
        )
        if "retrieval_cosine" in found:
            show_retrieval(found["retrieval_cosine"], "The same, scored by cosine")
        show_geometry(found["geometry"])
