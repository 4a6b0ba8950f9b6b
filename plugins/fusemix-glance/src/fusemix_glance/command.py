"""`fusemix glance`: films by a few looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json, print_table
from fusemix_core.cli.groups import DataOptions, SplitOptions, given, grouped
from fusemix_core.errors import ConfigError

glance = typer.Typer(
    help="Predict what films are about from a few looks, which a cheap pass chooses.",
    no_args_is_help=True,
)

Target = Annotated[
    str, typer.Option("--target", metavar="COLUMN", help="The column with each film's class.")
]
Folder = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Where the model goes: a new folder.")
]
First = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The cheap image encoder, which sees all windows. [efficientnet-lite0-64]",
        rich_help_panel=o.ENCODERS,
    ),
]
Look = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The expensive image encoder. [efficientnet-lite2]",
        rich_help_panel=o.ENCODERS,
    ),
]
Sound = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The encoder of sounds; none: films are only seen. [speech-embedding]",
        rich_help_panel=o.ENCODERS,
    ),
]
Moments = Annotated[int | None, typer.Option(help="Moments of a film. [30]")]
Windows = Annotated[
    int | None, typer.Option(help="Windows a side of a frame; 1: whole frames. [2]")
]
Most = Annotated[int | None, typer.Option(help="Looks per film in fitting. [8]")]
Looks = Annotated[int, typer.Option(help="Windows that the expensive encoder sees.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="PROBABILITY",
        help="Stop looking once the class is as probable as this; --looks are the most then.",
        show_default=False,
    ),
]
Table = Annotated[
    Path | None,
    typer.Option("--out", metavar="CSV", help="Write the predictions to this table."),
]
_SHOWN = 10


@glance.command("sample")
def sample(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")] = Path("films"),
) -> None:
    """Write 60 short films with sound, and films.csv, which lists them.

    Examples:

        fusemix glance sample films
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already.", "Name another: fusemix glance sample FOLDER")
    from fusemix_glance.sample import write_sample

    table = write_sample(folder)
    out.print(Text(f"{table}: video, shape, split"), soft_wrap=True)


@glance.command("fit")
@grouped
def fit(
    data: DataOptions,
    splits: SplitOptions,
    target: Target,
    to: Folder,
    first: First = None,
    look: Look = None,
    sound: Sound = None,
    moments: Moments = None,
    windows: Windows = None,
    most: Most = None,
    seed: Annotated[int | None, typer.Option(help="Of splits and fits. [0]")] = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Learn from a table of films, with the columns video and --target, where to look and what is
    seen there.

    Examples:

        fusemix glance fit --data films/films.csv --target shape --out runs/1
    """
    if to.exists():
        raise ConfigError(f"{to} exists already.", "Choose another --out.")
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_glance.job import GlanceConfig, fit_films

    how = given(
        first=first, look=look, sound=sound, moments=moments, windows=windows, most=most,
        seed=seed, device=device,
    )  # fmt: skip
    if sound == "none":
        how["sound"] = ""
    config = _data(data, splits, {"target": f"{target}:class"})
    with ConsoleReporter() as reporter:
        model = fit_films(config, GlanceConfig(**how), reporter=reporter)
    model.save_pretrained(to)
    if json:
        print_json({"model": str(to), **model.data, **model.metrics})
        return
    rows = [[f"{looks:g}", f"{accuracy:.3f}"] for looks, accuracy in model.metrics["looks"]]
    print_table(["looks", "accuracy (validation)"], rows)
    out.print(Text(f"model: {to}"), soft_wrap=True)


@glance.command("predict")
@grouped
def predict(
    model: o.Model,
    data: DataOptions,
    looks: Looks = 4,
    threshold: Threshold = None,
    to: Table = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Predict the films of a table with a model of `fusemix glance fit`.

    Examples:

        fusemix glance predict runs/1 --data new.csv --looks 3

        fusemix glance predict runs/1 --data new.csv --threshold 0.9
    """
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.saved.model import load
    from fusemix_glance.job import predict_films
    from fusemix_glance.model import GlanceModel

    sources = o.key_values(encoder, "--encoder")
    loaded = load(model, device=device or "auto", encoders=sources)
    if not isinstance(loaded, GlanceModel):
        raise ConfigError(
            f"{model} is a model of the kind '{loaded.kind}'.", "Fit one: fusemix glance fit"
        )
    config = _data(data, SplitOptions(), {})
    with ConsoleReporter() as reporter:
        found = predict_films(loaded, config, looks=looks, threshold=threshold, reporter=reporter)
    if to is not None:
        found.write(to)
    if json:
        columns = {name: list(values) for name, values in found.columns.items()}
        print_json({"predictions": columns, **found.notices})
        return
    show(found, to)


def show(found: Any, to: Path | None) -> None:
    """The first predictions, and what they took."""
    names = ["prediction", "looks", "looked_at"]
    rows = [
        [found.origin[i][1], *(str(found.columns[name][i]) for name in names)]
        for i in range(min(_SHOWN, len(found)))
    ]
    print_table(["row", *names], rows)
    if to is not None:
        out.print(Text(f"{len(found):,} predictions: {to}"), soft_wrap=True)
    spent = found.notices["glance"]
    seconds = ", ".join(f"{m} {s:g} s" for m, s in spent["seconds"].items())
    out.print(
        Text(f"{spent['looks']:,} looks at {spent['moments']:,} moments; encoders: {seconds}"),
        soft_wrap=True,
    )


def _data(data: DataOptions, splits: SplitOptions, facts: dict[str, str]) -> Any:
    """The data as the options describe them."""
    from fusemix_core.config import DataConfig, from_dict

    table = data.table() | splits.table()
    if not table.get("source"):
        raise ConfigError("No data given.", "Add --data PATH.")
    if not facts:
        table |= {"validation_fraction": 0.0, "test_fraction": 0.0}
    return from_dict(DataConfig, {**table, "facts": facts})
