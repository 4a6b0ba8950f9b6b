"""`fusemix encode`: fill the latent store, fit nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    EncodingOptions,
    OutputOptions,
    given,
    grouped,
)
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.encode import EncodingPlan
    from fusemix_core.runs.encode import Encoded
    from fusemix_core.runs.reporter import Reporter


PreferredViews = Annotated[
    str | None, typer.Option("--recipe", help="Take the views that this recipe prefers.")
]


@grouped
def encode(
    encoders: EncoderOptions,
    data: DataOptions,
    encoding: EncodingOptions,
    output: OutputOptions,
    recipe: PreferredViews = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
) -> None:
    """Encode the items of a dataset and keep their latents, for any later run.

    Latents that are in the store are not encoded again. One encoder is enough here; its view then
    needs no modality. Without --view or --recipe the first view of each encoder is taken.
    `fusemix_core.encode` does the same and returns the latents.

    Examples:

        fusemix encode --a efficientnet-lite0 --b minilm --data pairs.csv \\
            --recipe auto

        fusemix encode --encoder image=efficientnet-lite0 --data photos/

        fusemix encode --encoder text=minilm --view tokens --data pairs.csv
    """
    names, table = encoders.names(), data.table()
    views = checked_views(names, table, encoders.views(), recipe)

    from fusemix_core.jobs.encode import plan_encoding, run_encoding

    how = given(device=device, dtype=dtype) | encoding.table()
    notes = Notes()
    plan = plan_encoding(names, table, views=views, tell=notes, **how)
    carry_out(plan, run_encoding, output, notes)


def checked_views(
    names: Mapping[str, str],
    table: Mapping[str, Any],
    views: Mapping[str, str],
    recipe: str | None = None,
) -> dict[str, str]:
    """modality → view, before anything heavy is imported.

    Args:
        names: modality → encoder.
        table: Fields of `DataConfig`.
        views: modality → view, as far as they were given.
        recipe: The recipe whose views are preferred to the encoders' first ones.

    Raises:
        ConfigError: If there are no encoders or data, or they can't be used together.
    """
    from fusemix_core.runs.config import find_recipe, resolve_encoders, resolve_views

    if not names or "source" not in table:
        raise ConfigError(
            "Say what to encode.", "Example: fusemix encode --encoder image=NAME --data photos/"
        )
    preferred = find_recipe(recipe).views if recipe else None
    return resolve_views(resolve_encoders(names), views, preferred)


def carry_out(
    plan: EncodingPlan,
    run: Callable[[EncodingPlan, Reporter], Encoded],
    output: OutputOptions,
    notes: Notes,
) -> None:
    """Show the plan and, unless `--dry-run` is given, `run` it and show what was encoded. `notes`
    has printed those of the plan."""
    from fusemix_core.cli.console import print_json, print_table
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.cli.show import show_encoders

    if output.json and output.dry_run:
        print_json([e.as_dict() for e in plan.encoders.values()])
    elif not output.json:
        show_encoders(plan.encoders.values())
    if output.dry_run:
        return
    with ConsoleReporter(notes) as reporter:
        encoded = run(plan, reporter)
    rows = [
        {
            "modality": m,
            "encoder": plan.encoders[m].spec.name,
            "view": plan.encoders[m].view,
            "dtype": e.dtype,
            "items": e.encoded + e.cached + len(e.bad),
            "encoded": e.encoded,
            "cached": e.cached,
            "bad": len(e.bad),
            "fingerprint": e.fingerprint,
        }
        for m, e in encoded.extractions.items()
    ]
    if output.json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(r.values()) for r in rows])
