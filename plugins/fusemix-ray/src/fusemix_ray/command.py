"""`fusemix ray-embed`: fill the latent store from several machines."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.embed import PreferredViews, carry_out, checked_views

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Ray cluster; auto: the one this machine is part of. [this machine alone]",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="How many encode at once. [one a GPU; without GPUs one a machine]"),
]
GpusPerWorker = Annotated[
    float | None, typer.Option(help="0 for CPUs only, 0.5 to share one. [1 where there are GPUs]")
]


def ray_embed(
    a: o.A = None,
    b: o.B = None,
    encoder: o.Encoders = None,
    view: o.Views = None,
    recipe: PreferredViews = None,
    data: o.Data = None,
    column: o.Columns = None,
    max_bad: o.MaxBad = None,
    allow_outside: o.AllowOutside = None,
    dtype: o.Dtype = None,
    store_dtype: o.StoreDtype = None,
    encode_batch: o.EncodeBatch = None,
    backend: o.Backend = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    json: o.Json = False,
) -> None:
    """Encode the items of a dataset on the machines of a Ray cluster, for any later run.

    As `fusemix embed`, whose latent store it fills. FUSEMIX_HOME must be a folder that all machines
    share, and so must the data's.

    Examples:

        fusemix ray-embed --a dinov2 --b bge-large --data pairs.csv --recipe auto --address auto

        fusemix ray-embed -e text=minilm --data pairs.csv --workers 2 --gpus-per-worker 0
    """
    names = o.encoder_values(a, b, encoder)
    table = o.data_values(source=data, columns=column, max_bad=max_bad, allow_outside=allow_outside)
    views = checked_views(names, table, view, recipe)

    from fusemix_ray.flow import plan_over_ray, run_over_ray

    plan = plan_over_ray(
        names,
        table,
        views=views,
        dtype=dtype or "float32",
        store_dtype=store_dtype or "float16",
        encode_batch=encode_batch,
        backend=backend or "auto",
    )
    run = partial(run_over_ray, address=address, workers=workers, gpus_per_worker=gpus_per_worker)
    carry_out(plan, run, dry_run=dry_run, json=json)
