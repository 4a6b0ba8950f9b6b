"""`fusemix extend`: more modalities for a fused model."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.align import carry_out, run_values, take_encoders
from fusemix_core.cli.groups import (
    DataOptions,
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
from fusemix_core.errors import ConfigError

Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        "-e",
        metavar="MODALITY=NAME",
        help="The encoder of a modality to add; of one that the model has, the encoder to use "
        "where its own can't be taken by its name.",
    ),
]


@grouped
def extend(
    model: o.Model,
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    recipe: RecipeOptions,
    run: RunOptions,
    encoding: EncodingOptions,
    evaluators: EvaluatorOptions,
    output: OutputOptions,
    encoder: Encoders = None,
    view: o.Views = None,
    correction: o.Corrections = None,
    device: o.Device = None,
) -> None:
    """Add modalities to a fused model without moving its own.

    The data pair the new items with items of a modality that the model has. Its adapters stay as
    they are, to the bit; new ones are fitted to their embeddings, and the whole is saved as a new
    model. Only directions from and to the new modalities are measured, also those to modalities
    that they were never paired with, if the data join them through a third.

    Examples:

        fusemix extend runs/1 -e audio=whisper-tiny --data spoken.csv \\
            --out runs/2

        fusemix extend runs/1 -e audio=whisper-tiny --data spoken.csv \\
            --recipe sail --dry-run

        fusemix extend runs/1 -e molecule=chemnet -e image=timm:resnet50 \\
            --data molecules.tsv
    """
    values = run_values(
        run, data.table() | splits.table() | evaluators.facts(facts.table()), recipe, encoding
    )
    if values.setdefault("extends", model) != model:
        raise ConfigError(
            f"The config's run extends {values['extends']}, not {model}.", "Name that model."
        )
    take_encoders(values, o.key_values(encoder, "--encoder"), o.key_values(view, "--view"))
    values |= given(device=device) | evaluators.table() | o.corrections(correction)
    carry_out(values, recipe.overrides, run, output, ["fusemix", "extend", model])
