"""`fusemix predict` and `fusemix explain`: a predictor at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json
from fusemix_core.cli.groups import DataOptions, grouped
from fusemix_core.errors import ConfigError

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="CSV",
        help="Write the predictions to this table. [the terminal shows the first]",
        rich_help_panel=o.OUTPUT,
    ),
]
Cascade = Annotated[
    float | None,
    typer.Option(
        "--cascade",
        metavar="PROBABILITY",
        help="Encode the slowest modality only for rows whose class is less probable than this "
        "from the others.",
        show_default=False,
    ),
]
Cheap = Annotated[
    list[str] | None,
    typer.Option(
        "--cheap",
        metavar="MODALITY",
        help="With --cascade: the modalities to begin with. [all but the slowest]",
        show_default=False,
    ),
]
_SHOWN = 10


@grouped
def predict(
    model: o.Model,
    data: DataOptions,
    to: Out = None,
    cascade: Cascade = None,
    cheap: Cheap = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Predict the rows of a table with a predictor of `fusemix fuse`.

    Columns are read as in the run, unless --column says otherwise. A row may lack modalities: its
    prediction says which were used, and what to expect from these.

    Examples:

        fusemix predict runs/f --data new.csv --out predictions.csv

        fusemix predict runs/f --data new.csv --json

        fusemix predict runs/f --data new.csv --cascade 0.9 --cheap table
    """
    if cheap and cascade is None:
        raise ConfigError("--cheap is for a cascade.", "Add --cascade 0.9.")
    from fusemix_core.jobs.measured_data import run_of
    from fusemix_core.jobs.predict import load_predictor, predicted_data

    config = predicted_data(data.table(), run_of(model))

    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.jobs import predict as job

    predictor = load_predictor(model, device or "auto", o.key_values(encoder, "--encoder"))
    with ConsoleReporter() as reporter:
        if cascade is None:
            found = job.predict(predictor, config, reporter=reporter)
        else:
            from fusemix_core.jobs.cascade import cascade as run_cascade

            found = run_cascade(predictor, config, cascade, cheap or (), reporter=reporter)
    if to is not None:
        found.write(to)
    if json:
        columns = {name: [_plain(v) for v in values] for name, values in found.columns.items()}
        rows = [{"file": file, "row": row} for file, row in found.origin]
        for i, row in enumerate(rows):
            row |= {name: values[i] for name, values in columns.items()}
        print_json({"predictions": rows, **found.notices})
        return
    show(found, to)


def show(found: Any, to: Path | None) -> None:
    """The first predictions, and where all are."""
    from fusemix_core.cli.console import print_table

    names = [n for n in found.columns if not n.startswith(("probability_", "survival_"))]
    rows = [
        [found.origin[i][1], *(_plain(found.columns[name][i]) for name in names)]
        for i in range(min(_SHOWN, len(found)))
    ]
    if to is None or len(found) <= _SHOWN:
        print_table(["row", *names], [[_short(cell) for cell in row] for row in rows])
    rest = len(found) - len(rows)
    if to is not None:
        out.print(Text(f"{len(found):,} predictions: {to}"), soft_wrap=True)
    elif rest:
        out.print(f"… and {rest:,} more: --out predictions.csv writes them all.")
    if (told := found.notices.get("cascade")) is not None:
        out.print(Text(_saved(told)), soft_wrap=True)


def _saved(told: dict[str, Any]) -> str:
    """How much a cascade saved, in a sentence or two."""
    text = (
        f"cascade: {told['confident']:,} rows are predicted from {' + '.join(told['cheap'])} only; "
        f"{told['saved']:,} of them have items that were not encoded."
    )
    if "expected_accuracy" in told:
        text += (
            f" On validation rows {told['expected_share']:.0%} were, with an accuracy of "
            f"{told['expected_accuracy']:.3f}."
        )
    return text


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


@grouped
def explain(
    model: Annotated[
        Path, typer.Argument(help="A run of `fusemix fuse`.", metavar="RUN", show_default=False)
    ],
    data: DataOptions,
    to: Out = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Show what each modality gives, and for rows what the prediction would be without each.

    Without --data the measures of the run are shown. With --data, --out is a table of the rows:
    their prediction, and the prediction without each modality.

    Examples:

        fusemix explain runs/f

        fusemix explain runs/f --data new.csv --out explained.csv
    """
    from fusemix_core.jobs.explain import explain_rows, explained_run, sections
    from fusemix_core.jobs.measured_data import run_of
    from fusemix_core.jobs.predict import load_predictor, predicted_data

    if not data.data:
        results = explained_run(model)
        if json:
            print_json(results)
            return
        from fusemix_core.cli.show import show_sections

        show_sections(sections(results))
        return
    config = predicted_data(data.table(), run_of(model))

    from fusemix_core.cli.progress import ConsoleReporter

    predictor = load_predictor(model, device or "auto", o.key_values(encoder, "--encoder"))
    with ConsoleReporter() as reporter:
        found = explain_rows(predictor, config, reporter=reporter)
    if to is not None:
        found.write(to)
    show(found, to)
