"""`fusemix extend`: more modalities for a fused model."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.align import carry_out, file_values
from fusemix_core.errors import ConfigError


def extend(
    model: o.Model,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="MODALITY=NAME",
            help="The encoder of a modality to add; of one that the model has, the encoder to use "
            "where its own can't be taken by its name.",
        ),
    ] = None,
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
    recipe: o.Recipe = None,
    set_: o.Set = None,
    config: o.ConfigFile = None,
    out: o.Out = None,
    resume: o.Resume = False,
    seed: o.Seed = None,
    device: o.Device = None,
    store_dtype: o.StoreDtype = None,
    encode_batch: o.EncodeBatch = None,
    backend: o.Backend = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Add modalities to a fused model without moving its own.

    The data pair the new items with items of a modality that the model has. Its adapters stay as
    they are, to the bit; new ones are fitted to their embeddings, and the whole is saved as a new
    model. Measured are the directions from and to what is new, also to modalities that it was never
    paired with, where the data join them through a third.

    Examples:

        fusemix extend runs/1 -e audio=whisper-tiny --data spoken.csv --out runs/2

        fusemix extend runs/1 -e audio=whisper-tiny --data spoken.csv --recipe sail --dry-run

        fusemix extend runs/1 -e molecule=chemnet -e image=timm:resnet50 --data molecules.tsv
    """
    values = file_values(config, out, resume)
    if values.setdefault("extends", model) != model:
        raise ConfigError(
            f"The config's run extends {values['extends']}, not {model}.", "Name that model."
        )
    if named := o.key_values(encoder, "--encoder"):
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
        "seed": seed,
        "device": device,
        "store_dtype": store_dtype,
        "encode_batch": encode_batch,
        "backend": backend,
    }
    values |= {k: v for k, v in top.items() if v is not None}
    carry_out(values, set_ or [], out, resume, dry_run, json)
