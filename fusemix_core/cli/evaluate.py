"""`fusemix eval`: measure a fused model on data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import print_error, print_json
from fusemix_core.cli.groups import (
    DataOptions,
    EvaluatorOptions,
    FactOptions,
    SplitOptions,
    given,
    grouped,
)
from fusemix_core.config import Part
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.evaluation.running import Evaluation
    from fusemix_core.jobs.measured_data import MeasuredData


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
    label_separator: Annotated[
        str | None,
        typer.Option(help="Any number of classes an item, with this between them; AUROC by class."),
    ] = None
    positive: Annotated[
        list[str] | None, typer.Option(help="For these, a prompt that says so. ['{}']")
    ] = None
    negative: Annotated[
        list[str] | None, typer.Option(help="For these, a prompt that denies it. ['no {}']")
    ] = None
    modality: Annotated[str | None, typer.Option(help="What to classify.")] = None

    def read(self) -> dict[str, Any] | None:
        """What `measure_classes` takes of these; None without classes."""
        if self.templates and not self.classes:
            raise ConfigError("--templates needs --classes.", "Add --classes classes.txt")
        if (self.label_separator or self.positive or self.negative) and not self.classes:
            raise ConfigError("--label-separator needs --classes.", "Add --classes classes.txt")
        if (self.positive or self.negative) and not self.label_separator:
            raise ConfigError(
                "--positive and --negative are for items with several classes.",
                "Add --label-separator ';', or give --templates.",
            )
        if not self.classes:
            return None
        from fusemix_core.evaluation.prompt_files import read_classes, read_templates

        return {
            "classes": read_classes(self.classes),
            "templates": read_templates(self.templates) if self.templates else None,
            "label_column": self.label_column,
            **given(
                separator=self.label_separator,
                positive=self._prompts(self.positive),
                negative=self._prompts(self.negative),
            ),
            "modality": self.modality,
        }

    def _prompts(self, given: list[str] | None) -> list[str] | None:
        for prompt in given or ():
            if prompt.count("{}") != 1:
                raise ConfigError(
                    f"The prompt '{prompt}' must contain {{}} once, for the class.",
                    "Example: --negative 'no {}'",
                )
        return given


@dataclass(frozen=True)
class CompressionOptions:
    """Smaller embeddings to measure: `--dims`, `--dtype`."""

    dims: Annotated[
        str | None, typer.Option(metavar="N,N", help="Measure the first so many dimensions, too.")
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE,TYPE", help="Measure codes, too: float16, int8, binary."),
    ] = None

    def parts(self) -> list[Part]:
        """The evaluator that measures these; none if nothing is asked for.

        Raises:
            ConfigError: If `--dims` are not numbers.
        """
        if self.dims is None and self.dtype is None:
            return []
        dims = [one.strip() for one in (self.dims or "").split(",") if one.strip()]
        if not all(one.isdecimal() for one in dims):
            raise ConfigError(f"--dims is '{self.dims}'.", "Example: --dims 64,128")
        dtypes = [one.strip() for one in (self.dtype or "").split(",") if one.strip()]
        return [Part("compression", {"dims": [int(one) for one in dims], "dtypes": dtypes})]


@dataclass(frozen=True)
class GenerationOptions:
    """Images that a generator draws from the items, and their judge: `--generate`."""

    generate: Annotated[
        str | None,
        typer.Option(metavar="GENERATOR", help="Measure what it draws, by another encoder."),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(help="Real images for the judge: a table with the columns image and text."),
    ] = None
    judge: Annotated[
        str | None,
        typer.Option(help="Encoder that judges. [the largest installed one that had no part]"),
    ] = None

    def parts(self) -> list[Part]:
        """The evaluator that measures this; none without a generator.

        Raises:
            ConfigError: If the others are given without a generator.
        """
        if self.generate is None:
            if self.images or self.judge:
                raise ConfigError(
                    "--images and --judge need --generate.", "Example: --generate emoji"
                )
            return []
        images = None if self.images is None else str(self.images)
        chosen = given(generator=self.generate, images=images, judge=self.judge)
        return [Part("generation", chosen)]


Split = Annotated[
    str | None,
    typer.Option(help="train, validation, test or all. [test on the run's data, else all]"),
]


@grouped
def evaluate(
    model: o.Model,
    data: DataOptions,
    splits: SplitOptions,
    evaluators: EvaluatorOptions,
    facts: FactOptions,
    zero_shot: ZeroShotOptions,
    compression: CompressionOptions,
    generation: GenerationOptions,
    split: Split = None,
    encoder: o.ModelEncoders = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Measure a fused model: retrieval and geometry, or zero-shot classification.

    Further evaluators are named with --evaluator. One that fails doesn't stop the others; the exit
    code is then 1, or 2 if the command or the data need a change. Without --data a run is measured
    again on its own test split; on other data all rows are used, unless a split is asked for.

    Examples:

        fusemix eval runs/1

        fusemix eval runs/1 --data other.csv --json

        fusemix eval runs/1 --data labelled.csv --classes classes.txt \\
            --templates prompts.txt

        fusemix eval runs/1 --data findings.csv --classes findings.txt \\
            --label-column findings --label-separator ';' --group-by patient_id

        fusemix eval runs/2 --baseline runs/1

        fusemix eval runs/1 --dims 64,128 --dtype int8,binary

        fusemix eval runs/1 --generate emoji --images emoji.csv

        fusemix eval runs/1 --evaluator "./mine.py:Hubs k=5"
    """
    from fusemix_core.jobs.measured_data import measured_data

    what = measured_data(
        model, data.table() | splits.table() | evaluators.facts(facts.table()), split, seed
    )
    further = [*evaluators.parts(), *compression.parts(), *generation.parts()]
    beside = evaluators.baselines() or []
    found = _measured(model, what, zero_shot.read(), further, beside, split, encoder, device)
    show_evaluation(found, json)


def _measured(
    model: str,
    what: MeasuredData,
    classes: dict[str, Any] | None,
    evaluators: list[Part],
    baselines: list[str],
    split: str | None,
    encoder: list[str] | None,
    device: str | None,
) -> Evaluation:
    """The measures of a model, with a bar of the progress."""
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs import evaluate as job
    from fusemix_core.runs.models import load_model

    fused = load_model(model, device or "auto", o.key_values(encoder, "--encoder"))
    how: dict[str, Any] = {"evaluators": evaluators, "seed": what.seed, "baselines": baselines}
    with ConsoleReporter() as how["reporter"]:
        if classes:
            return job.measure_classes(fused, what.config, split=split or "all", **classes, **how)
        return job.measure_pairs(fused, what.config, what.split, **how)


def show_evaluation(found: Evaluation, json: bool) -> None:
    """Print what evaluators found; with any that failed, end with the exit code of the worst."""
    from fusemix_core.cli.show import show_sections

    if json:
        print_json(found.metrics | found.data)
    else:
        for sections in found.sections.values():
            show_sections(sections)
    for error in found.failed.values():
        print_error(error.message, error.hint)
    if found.failed:
        raise typer.Exit(max(error.exit_code for error in found.failed.values()))
