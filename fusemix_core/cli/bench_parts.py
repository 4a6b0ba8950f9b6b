"""`fusemix bench` of fusers and of re-rankers, with one encoder of each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.fuse import Event, Target, Task, Time
from fusemix_core.cli.groups import SideOptions, given
from fusemix_core.config import parse_part, to_dict
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.benchmark.lines import Line


@dataclass(frozen=True)
class Predicted:
    """The target of fusers: with any of these, fusers are compared instead of recipes."""

    target: Target = None
    time: Time = None
    event: Event = None
    task: Task = None

    @property
    def given(self) -> dict[str, Any]:
        """Option → value, of those that were given."""
        return given(**{f"--{name}": value or None for name, value in vars(self).items()})


@dataclass(frozen=True)
class Reranked:
    """Which re-rankers are compared over one recipe, and the tokens they take."""

    rerank: Annotated[
        list[str] | None,
        typer.Option(
            "--rerank",
            metavar="NAME",
            help="Compare re-rankers over one recipe: interaction, cross, auto, …; with options "
            'and settings "NAME KEY=VALUE". Repeat for more.',
            rich_help_panel=o.METHOD,
        ),
    ] = None
    token_encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--token-encoder",
            metavar="MODALITY=NAME",
            help="With --rerank, the encoder that gives the tokens. [the recipe's own]",
            rich_help_panel=o.METHOD,
        ),
    ] = None
    token_view: Annotated[
        list[str] | None,
        typer.Option(
            "--token-view",
            metavar="MODALITY=VIEW",
            help="With --rerank, the view that has the tokens. [as fusemix rerank chooses]",
            rich_help_panel=o.METHOD,
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether re-rankers are compared.

        Raises:
            ConfigError: If only tokens are named.
        """
        if not self.rerank and (self.token_encoder or self.token_view):
            raise ConfigError("Tokens are for re-rankers.", "Name one: --rerank interaction")
        return bool(self.rerank)

    def tokens(self) -> dict[str, dict[str, str]]:
        """The encoders and views of the tokens."""
        return {
            "encoders": o.key_values(self.token_encoder, "--token-encoder"),
            "views": o.key_values(self.token_view, "--token-view"),
        }


def refuse(unfit: Mapping[str, Any], because: str) -> None:
    """Raise `ConfigError` for an option that was given (option → value) and can't be used."""
    for option, value in unfit.items():
        if value is not None:
            raise ConfigError(f"{option} can't be used here: {because}", f"Leave out {option}.")


def one_each(several: Mapping[str, Sequence[str]], because: str) -> dict[str, str]:
    """modality → its only encoder.

    Raises:
        ConfigError: If there are several of one.
    """
    for modality, names in several.items():
        if len(names) != 1:
            raise ConfigError(f"{modality} has {len(names)} encoders.", because)
    return {modality: names[0] for modality, names in several.items()}


def fuser_tables(
    values: Mapping[str, Any], sides: SideOptions, predicted: Predicted
) -> dict[str, Any]:
    """The tables of a `FuseConfig`: `values`, the encoders and what is predicted."""
    from fusemix_core.runs.fusing import target_facts

    named = o.key_values(sides.encoder, "--encoder")
    several = {m: text.split(",") for m, text in named.items()} or sides.sides()
    encoders = one_each(several, "Fusers are compared on one of each.")
    task = None if predicted.task is None else to_dict(parse_part(predicted.task))
    columns, targets = target_facts(
        tuple(predicted.target or ()), predicted.time, predicted.event, (task or {}).get("name")
    )
    data = values["data"]
    data = {**data, "facts": {**data.get("facts", {}), **columns}}
    found = {**values, "encoders": encoders, "data": data, "targets": targets}
    return found | given(task=task)


def compare_fusers(
    values: dict[str, Any], methods: list[str], seeds: int, out: Path, json: bool
) -> None:
    """Run the benchmark of fusers, and show it."""
    from fusemix_core.benchmark.fusers import REPORT, cells, failures, protocol, run_fusers
    from fusemix_core.cli.console import Notes, print_json, print_table
    from fusemix_core.cli.console import out as console
    from fusemix_core.cli.progress import ConsoleReporter

    notes = Notes()
    with ConsoleReporter(notes) as reporter:
        lines = run_fusers(values, methods, seeds, out, reporter=reporter)
    if json:
        print_json({"seeds": lines, "notes": notes.texts})
        return
    heads, rows = cells(lines)
    print_table(heads, rows, title="Test rows", right=[False, True, True, False, True])
    for text in [protocol(lines), *failures(lines)]:
        console.print(text, soft_wrap=True, highlight=False)
    console.print(f"report:  {out / REPORT}", soft_wrap=True)


def reranked_tables(
    values: Mapping[str, Any], sides: SideOptions, methods: Sequence[str]
) -> dict[str, Any]:
    """The tables of a `RunConfig`: `values`, the encoders and the only recipe."""
    if len(methods) > 1:
        raise ConfigError(
            f"Re-rankers are compared over one recipe, not {len(methods)}.",
            "Name one: --methods auto",
        )
    encoders = one_each(sides.sides(), "Re-rankers are compared on one of each.")
    return {**values, "encoders": encoders, "recipe": methods[0] if methods else "auto"}


def compare_rerankers(
    values: dict[str, Any], reranked: Reranked, seeds: int, out: Path, json: bool
) -> list[dict[str, Any]]:
    """Run the benchmark of re-rankers, and show it; its lines."""
    from fusemix_core.benchmark.rerank_page import REPORT
    from fusemix_core.benchmark.rerankers import run_rerankers
    from fusemix_core.cli.console import Notes, print_json
    from fusemix_core.cli.console import out as console
    from fusemix_core.cli.progress import ConsoleReporter

    notes, tokens = Notes(), reranked.tokens()
    with ConsoleReporter(notes) as reporter:
        lines = run_rerankers(values, reranked.rerank or [], tokens, seeds, out, reporter=reporter)
    if json:
        print_json({"fits": lines, "notes": notes.texts})
        return lines
    _show_rerankers(lines)
    console.print(f"report:  {out / REPORT}", soft_wrap=True)
    return lines


def _show_rerankers(lines: Sequence[Line]) -> None:
    from fusemix_core.benchmark.rerank_page import (
        HEADS,
        best,
        cells,
        failures,
        protocol,
        sentence,
    )
    from fusemix_core.cli.console import out, print_table

    column = best(lines)
    if column is not None:
        right = [head not in ("re-ranker", "", "weight") for head in HEADS]
        print_table(HEADS, cells(lines), title="Test recall in percent", right=right)
        out.print(sentence(column).replace("`", "'"), soft_wrap=True, highlight=False)
    for text in [protocol(lines), *failures(lines)]:
        out.print(text, soft_wrap=True, highlight=False)
