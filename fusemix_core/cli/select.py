"""`fusemix select`: pairs chosen by their latents, as a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    EncodingOptions,
    FactOptions,
    OutputOptions,
    given,
    grouped,
)
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.config import DataConfig
    from fusemix_core.jobs.select import Chosen, SelectionPlan


@dataclass(frozen=True)
class SelectorOptions:
    """Which selector chooses, how many, and where they go."""

    selector: Annotated[str, typer.Option(help="By which selector.")] = "dpp"
    pairs: Annotated[int | None, typer.Option(help="How many to choose.")] = None
    by: Annotated[
        str | None,
        typer.Option(metavar="MODALITY", help="Whose items are compared. [the first]"),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A selector's setting: selector.concepts=50."
        ),
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="The manifest to write: .csv, .tsv or .jsonl.")
    ] = None

    @property
    def overrides(self) -> list[str]:
        """`key=value` settings of the selector."""
        return [*([f"selector.by={self.by}"] if self.by else []), *(self.set_ or [])]


PreferredViews = Annotated[
    str | None, typer.Option("--recipe", help="Take the views that this recipe prefers. [auto]")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the draw. [0]")]


@grouped
def select(
    encoders: EncoderOptions,
    data: DataOptions,
    facts: FactOptions,
    by: SelectorOptions,
    encoding: EncodingOptions,
    output: OutputOptions,
    split_column: o.SplitColumn = None,
    recipe: PreferredViews = None,
    seed: Seed = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
) -> None:
    """Choose pairs by their latents, and write them as a manifest for `fusemix align`.

    Only the modality that the selector looks at is encoded (none for `uniform`). Where the data
    tell splits, the pairs are chosen among the training ones, and all others are written too.
    `fusemix align --select … --pairs …` chooses without a manifest.

    Examples:

        fusemix select --a efficientnet-lite0 --b minilm --data pairs.csv \\
            --pairs 5000 --out subset.csv

        fusemix select --a efficientnet-lite0 --b minilm --data pairs.csv \\
            --pairs 500 --by text --out few.csv
    """
    names = encoders.names()
    if by.pairs is None or by.out is None:
        raise ConfigError(
            "Say how many pairs to choose, and where to write them.",
            "Example: --pairs 5000 --out subset.csv",
        )
    values = {
        "encoders": names,
        "views": encoders.views(),
        "data": data.table() | facts.table() | given(split_column=split_column),
        **given(recipe=recipe, seed=seed, device=device, dtype=dtype),
        **encoding.table(),
    }

    from fusemix_core.jobs.select import plan_selection, selection_config

    config, specs = selection_config(values, by.selector, by.pairs, by.overrides, by.out)
    notes = Notes()
    carry_out(plan_selection(config, specs, by.out, tell=notes), output, notes)


def carry_out(plan: SelectionPlan, output: OutputOptions, notes: Notes) -> None:
    """Show the plan and, unless `--dry-run` is given, run it and show what was chosen. `notes` has
    printed those of the plan."""
    from fusemix_core.cli.console import out as console
    from fusemix_core.cli.console import print_json
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.cli.show import show_encoders
    from fusemix_core.jobs.select import run_selection

    if output.json and output.dry_run:
        print_json([e.as_dict() for e in plan.encoders.values()])
    elif not output.json:
        show_encoders(plan.encoders.values())
    if output.dry_run:
        return
    with ConsoleReporter(notes) as reporter:
        chosen = run_selection(plan, reporter)
    count, offered = len(chosen.rows), len(chosen.dataset.splits["train"])
    if output.json:
        found = {"chosen": count, "of": offered, "out": str(plan.out), "outside": chosen.outside}
        print_json(found | chosen.notices.as_dict())
        return
    console.print(f"{count:,} of {offered:,} pairs: {plan.out}", soft_wrap=True)
    options = [f"--data {plan.out}", *_options_to_read(chosen, plan.config.data)]
    console.print(f"Fit on them: fusemix align … {' '.join(options)}", soft_wrap=True)


def _options_to_read(chosen: Chosen, data: DataConfig) -> list[str]:
    """The options that read the manifest as the data were read."""
    from fusemix_core.data.cells import FactColumn

    options = ["--allow-outside"] if chosen.outside else []
    for name, text in data.facts.items():
        place = FactColumn.parse(text)
        kind = place.kind or chosen.dataset.facts[name].kind  # which fewer rows might not show
        options.append(f"--fact {quote(f'{name}={place.column}:{kind}')}")
    if data.trust_column:
        options.append(f"--trust-column {quote(data.trust_column)}")
    return options
