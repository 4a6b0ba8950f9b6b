"""Options that several commands share, and how they become a config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fusemix_core.config import parse_part, to_dict
from fusemix_core.errors import ConfigError

ENCODERS, DATA, SPLITS = "Encoders", "Data", "Splits"
METHOD, OUTPUT, MACHINE = "Method", "Output", "Machine"
"""The panels of `--help`. Options that only one command has are in the panel "Options"."""

A = Annotated[
    str | None,
    typer.Option("--a", help="First encoder (sugar for --encoder).", rich_help_panel=ENCODERS),
]
B = Annotated[str | None, typer.Option("--b", help="Second encoder.", rich_help_panel=ENCODERS)]
Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        "-e",
        metavar="MODALITY=NAME",
        help="The encoder of a modality; once for each.",
        rich_help_panel=ENCODERS,
    ),
]
Views = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        metavar="MODALITY=VIEW",
        help="Which latent of an encoder to take, e.g. image=grid. [its first]",
        rich_help_panel=ENCODERS,
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="PATH",
        help="Manifest (csv, tsv, jsonl, parquet, json), folder, tar shards or dataset.",
        rich_help_panel=DATA,
    ),
]
Validation = Annotated[
    str | None,
    typer.Option(
        "--validation",
        metavar="PATH",
        help="Validation pairs in a file of their own.",
        rich_help_panel=SPLITS,
    ),
]
Test = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="PATH", help="Test pairs in a file of their own.", rich_help_panel=SPLITS
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="MODALITY=COLUMN",
        help="Column(s) of a modality: text=alt or text=alt,caption. A template makes one "
        "text of several: 'text={impression} {findings}'.",
        rich_help_panel=DATA,
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODALITY=COLUMN",
        help="Column(s) that a table does not take: table=visit or table=visit,ward. "
        "Without --column it takes all that nothing else uses.",
        rich_help_panel=DATA,
    ),
]
SplitColumn = Annotated[
    str | None, typer.Option(help="Column that says train/validation/test.", rich_help_panel=SPLITS)
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Keep rows with the same value in one split.", rich_help_panel=SPLITS
    ),
]
Facts = Annotated[
    list[str] | None,
    typer.Option(
        "--fact",
        metavar="NAME=COLUMN",
        help="A further column of the rows, for components that use facts: age=age_years, "
        "or with its kind: label=class_id:class (number, class, text, time, box, xywh, labels).",
        rich_help_panel=DATA,
    ),
]
TrustColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column that says how far to trust a row, 0 to 1; none: no column. [trust]",
        rich_help_panel=DATA,
    ),
]
ValidationFraction = Annotated[
    float | None, typer.Option(help="Share for validation. [0.1]", rich_help_panel=SPLITS)
]
TestFraction = Annotated[
    float | None, typer.Option(help="Share for test. [0.1]", rich_help_panel=SPLITS)
]
Reader = Annotated[
    str | None,
    typer.Option(
        "--reader",
        metavar="NAME",
        help='Reader of the data: a name, ./file.py:Class, or with options "NAME KEY=VALUE". '
        "[the first that knows the file]",
        rich_help_panel=DATA,
    ),
]
MaxBad = Annotated[
    float | None,
    typer.Option(help="Share of bad rows that fails a run. [0.01]", rich_help_panel=DATA),
]
AllowOutside = Annotated[
    bool | None,
    typer.Option(
        "--allow-outside", help="Accept paths outside the data folder.", rich_help_panel=DATA
    ),
]
TextEncoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="How text files are encoded, e.g. cp1252. [utf-8]",
        rich_help_panel=DATA,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="MARK",
        help="Mark between the cells of a table: ';', tab, pipe. [what fits]",
        rich_help_panel=DATA,
    ),
]
MissingValues = Annotated[
    str | None,
    typer.Option(
        metavar="WORDS", help="Cells that count as empty: nan,NULL,None.", rich_help_panel=DATA
    ),
]
Missing = Annotated[
    str | None,
    typer.Option(
        metavar="ok",
        help="Allow rows that lack an entry, and count them apart.",
        rich_help_panel=DATA,
    ),
]
Prefix = Annotated[
    list[str] | None,
    typer.Option(
        "--prefix",
        metavar="[MODALITY=]TEXT",
        help="Put this before each cell that names a file: images/ for a column of ids.",
        rich_help_panel=DATA,
    ),
]
Suffix = Annotated[
    list[str] | None,
    typer.Option(
        "--suffix",
        metavar="[MODALITY=]TEXT",
        help="Put this after each such cell, e.g. .jpg.",
        rich_help_panel=DATA,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps, … [auto]", rich_help_panel=MACHINE)
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Precision of encoders: float32, float16, bfloat16, or auto: float32, on a CUDA "
        "device half precision if the latents agree. [auto]",
        rich_help_panel=MACHINE,
    ),
]
StoreDtype = Annotated[
    str | None, typer.Option(help="float16 or float32 latents. [float16]", rich_help_panel=MACHINE)
]
EncodeBatch = Annotated[
    int | None, typer.Option(help="Items an encoder takes at once.", rich_help_panel=MACHINE)
]
Backend = Annotated[
    str | None,
    typer.Option(
        help="auto, eager (torch) or openvino for encoders on a CPU. [auto]",
        rich_help_panel=MACHINE,
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Keep latents in an object store: s3://bucket/prefix. "
        "[FUSEMIX_STORE, else the folder FUSEMIX_HOME]",
        rich_help_panel=MACHINE,
    ),
]
DecodeProcesses = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that decode images, sounds and other files. 0: threads do. "
        "[processes where threads are too slow for the encoder and cores are free]",
        rich_help_panel=MACHINE,
    ),
]
Evaluators = Annotated[
    list[str] | None,
    typer.Option(
        "--evaluator",
        metavar="NAME",
        help='Measure by this one too: a name, ./file.py:Class, or with options "NAME KEY=VALUE".',
        rich_help_panel=OUTPUT,
    ),
]
Corrections = Annotated[
    list[str] | None,
    typer.Option(
        "--correction",
        metavar="NAME",
        help="Fit this correction too, for fusemix generate: prior, or with options "
        '"NAME KEY=VALUE". Needs a fixed modality. [norm, shift and bank]',
        rich_help_panel=METHOD,
    ),
]
By = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="COLUMN",
        help="Show recall for each value of this column, too.",
        rich_help_panel=OUTPUT,
    ),
]
Private = Annotated[
    bool,
    typer.Option(
        "--private",
        help="Write no media and texts of the data, and no model that keeps rows of training "
        "items.",
        rich_help_panel=OUTPUT,
    ),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="NAME",
        help="Compare with this too: the folder of a run or model, a hub id, or a recipe; "
        "none: with nothing. [cca, fitted to the same rows]",
        rich_help_panel=OUTPUT,
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of splits and training. [0]", rich_help_panel=METHOD)
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="TOML",
        help="A run's config; options here win over it.",
        rich_help_panel=METHOD,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(help="A named method, or ./file.py:function. [auto]", rich_help_panel=METHOD),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe's setting, such as training.epochs=20, or a component and its "
        "options, such as 'objective=siglip bias=-8'.",
        rich_help_panel=METHOD,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME|STEPS",
        help="Stop fitting after this long, e.g. 90s, 10m or '2000 steps', with the best model so "
        "far. [until more gains nothing]",
        rich_help_panel=METHOD,
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        help="Choose the pairs to fit on by this selector, as many as --pairs. [uniform]",
        rich_help_panel=METHOD,
    ),
]
Pairs = Annotated[
    int | None,
    typer.Option(help="Fit on so many of the training pairs. [all]", rich_help_panel=METHOD),
]
Out = Annotated[
    Path | None, typer.Option(help="The run's folder. [runs/DATE-TIME]", rich_help_panel=OUTPUT)
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=OUTPUT)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=OUTPUT)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)]

Model = Annotated[
    str,
    typer.Argument(help="A run's or model's folder, PLUGIN:NAME of a plugin's model, or a hub id."),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        "--rerank",
        metavar="R",
        show_default=False,
        help="A run of `fusemix rerank`, or its model: it orders the first results anew.",
    ),
]
ModelEncoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        "-e",
        metavar="MODALITY=NAME",
        help="The encoder to use where a model's own can't be taken by its name.",
        rich_help_panel=ENCODERS,
    ),
]


def key_values(
    pairs: list[str] | None, option: str, form: str = "MODALITY=VALUE", example: str = "image=…"
) -> dict[str, str]:
    """`["image=dinov2"]` as a dict; a malformed or repeated one is a `ConfigError`."""
    out: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not (equals and key and value):
            raise ConfigError(f"{option} {pair}: expected {form}.", f"Example: {option} {example}")
        if key in out:
            raise ConfigError(f"{option} names '{key}' twice.")
        out[key] = value
    return out


def column_values(pairs: list[str] | None, option: str = "--column") -> dict[str, str]:
    """modality → its columns, comma-separated; the columns of a repeated modality are joined."""
    out: dict[str, str] = {}
    for pair in pairs or []:
        for modality, columns in key_values([pair], option).items():
            if modality in out and "{" in f"{out[modality]}{columns}":
                raise ConfigError(
                    f"{option} {modality}={columns}: a template is the only column of {modality}."
                )
            out[modality] = f"{out[modality]},{columns}" if modality in out else columns
    return out


def affix_values(texts: list[str] | None, option: str) -> dict[str, str]:
    """modality → text; one without per modality is for `*`, all that are read from files."""
    pairs = [text if "=" in text else f"*={text}" for text in texts or []]
    return key_values(pairs, option, "TEXT or MODALITY=TEXT", "image=images/")


def view_values(views: list[str] | None, encoders: Mapping[str, str]) -> dict[str, str]:
    """modality → view; with one encoder, a view may leave out its modality."""
    if len(encoders) == 1:
        views = [v if "=" in v else f"{next(iter(encoders))}={v}" for v in views or []]
    return key_values(views, "--view")


def corrections(texts: list[str] | None) -> dict[str, Any]:
    """The field of `RunConfig` with the corrections that were given, if any."""
    return {"corrections": [to_dict(parse_part(text)) for text in texts]} if texts else {}


def encoder_values(a: str | None, b: str | None, encoders: list[str] | None) -> dict[str, str]:
    """modality → encoder name, `--a` and `--b` included, under their own modalities.

    Two of one modality are called `a` and `b`.
    """
    named = key_values(encoders, "--encoder")
    if a is None and b is None:
        return named
    if a is None or b is None or named:
        raise ConfigError("Give both --a and --b, or --encoder MODALITY=NAME for each modality.")
    from fusemix_core.registry import registry

    first, second = registry.encoder(a).modality, registry.encoder(b).modality
    if first == second:
        first, second = "a", "b"
    return {first: a, second: b}
