"""`fusemix embed`: fill the latent store, fit nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.encode import EmbeddingPlan
    from fusemix_core.runs.encode import Encoded
    from fusemix_core.runs.reporter import Reporter


PreferredViews = Annotated[
    str | None, typer.Option("--recipe", help="Take the views that this recipe prefers.")
]


def embed(
    a: o.A = None,
    b: o.B = None,
    encoder: o.Encoders = None,
    view: o.Views = None,
    recipe: PreferredViews = None,
    data: o.Data = None,
    column: o.Columns = None,
    max_bad: o.MaxBad = None,
    allow_outside: o.AllowOutside = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    store_dtype: o.StoreDtype = None,
    encode_batch: o.EncodeBatch = None,
    backend: o.Backend = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    json: o.Json = False,
) -> None:
    """Encode the items of a dataset and keep their latents, for any later run.

    What is in the store already is not encoded again. One encoder is enough here; its view then
    needs no modality. Without --view or --recipe the first view of each encoder is taken.
    `fusemix_core.embed` does the same and gives the latents.

    Examples:

        fusemix embed --a dinov2 --b bge-large --data pairs.csv --recipe auto

        fusemix embed --encoder image=efficientnet-lite0 --data photos/

        fusemix embed --encoder text=minilm --view tokens --data pairs.csv
    """
    names = o.encoder_values(a, b, encoder)
    table = o.data_values(source=data, columns=column, max_bad=max_bad, allow_outside=allow_outside)
    views = checked_views(names, table, view, recipe)

    from fusemix_core.jobs.encode import plan_embedding, run_embedding

    plan = plan_embedding(
        names,
        table,
        views=views,
        device=device or "auto",
        dtype=dtype or "float32",
        store_dtype=store_dtype or "float16",
        encode_batch=encode_batch,
        backend=backend or "auto",
    )
    carry_out(plan, run_embedding, dry_run=dry_run, json=json)


def checked_views(
    names: Mapping[str, str],
    table: Mapping[str, Any],
    view: list[str] | None,
    recipe: str | None = None,
) -> dict[str, str]:
    """modality → view, before anything heavy is imported; `ConfigError` where encoders or data are
    not given, or can't be used together."""
    from fusemix_core.runs.config import find_recipe, resolve_encoders, resolve_views

    if not names or "source" not in table:
        raise ConfigError(
            "Say what to encode.", "Example: fusemix embed --encoder image=NAME --data photos/"
        )
    preferred = find_recipe(recipe).views if recipe else None
    return resolve_views(resolve_encoders(names), o.view_values(view, names), preferred)


def carry_out(
    plan: EmbeddingPlan,
    run: Callable[[EmbeddingPlan, Reporter], Encoded],
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Show the plan, `run` it unless it is all that is wanted, and show what became of it."""
    from fusemix_core.cli.console import print_json, print_table
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.cli.show import show_encoders

    if json and dry_run:
        print_json([e.as_dict() for e in plan.encoders.values()])
    elif not json:
        show_encoders(plan.encoders.values())
    if dry_run:
        return
    with ConsoleReporter() as reporter:
        encoded = run(plan, reporter)
    rows = [
        {
            "modality": m,
            "encoder": plan.encoders[m].spec.name,
            "view": plan.encoders[m].view,
            "items": e.encoded + e.cached + len(e.bad),
            "encoded": e.encoded,
            "cached": e.cached,
            "bad": len(e.bad),
            "fingerprint": e.fingerprint,
        }
        for m, e in encoded.extractions.items()
    ]
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(r.values()) for r in rows])
