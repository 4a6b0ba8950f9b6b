"""`fusemix embed`: fill the latent store, fit nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.errors import ConfigError


def embed(
    a: o.A = None,
    b: o.B = None,
    encoder: o.Encoders = None,
    view: o.Views = None,
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
    needs no modality. `fusemix_core.embed` does the same and gives the latents.

    Examples:

        fusemix embed --a dinov2 --b bge-large --data pairs.csv

        fusemix embed --encoder image=efficientnet-lite0 --data photos/

        fusemix embed --encoder text=minilm --view tokens --data pairs.csv
    """
    from fusemix_core.flow.settings import resolve_encoders, resolve_views

    names = o.encoder_values(a, b, encoder)
    if not names or not data:
        raise ConfigError(
            "Say what to encode.", "Example: fusemix embed --encoder image=NAME --data photos/"
        )
    specs = resolve_encoders(names)
    views = resolve_views(specs, o.view_values(view, names))
    table = o.data_values(source=data, columns=column, max_bad=max_bad, allow_outside=allow_outside)

    from fusemix_core.cli.console import print_json, print_table
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.cli.show import show_encoders
    from fusemix_core.flow.embed import plan_embedding, run_embedding

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
    if json and dry_run:
        print_json([e.as_dict() for e in plan.encoders.values()])
    elif not json:
        show_encoders(plan.encoders.values())
    if dry_run:
        return
    with ConsoleReporter() as reporter:
        encoded = run_embedding(plan, reporter)
    rows = [
        {
            "modality": m,
            "encoder": specs[m].name,
            "view": views[m],
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
