"""`fusemix ray-encode`: fill the latent store from several machines."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import Notes
from fusemix_core.cli.encode import PreferredViews, carry_out, checked_views
from fusemix_core.cli.groups import (
    DataOptions,
    EncoderOptions,
    EncodingOptions,
    OutputOptions,
    given,
    grouped,
)

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Ray cluster; auto: the one this machine is part of. [this machine only]",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="How many encode at once. [one a GPU; without GPUs one a machine]"),
]
GpusPerWorker = Annotated[
    float | None, typer.Option(help="0 for CPUs only, 0.5 to share one. [1 if there are GPUs]")
]


@grouped
def ray_encode(
    encoders: EncoderOptions,
    data: DataOptions,
    encoding: EncodingOptions,
    output: OutputOptions,
    recipe: PreferredViews = None,
    dtype: o.Dtype = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Encode the items of a dataset on the machines of a Ray cluster, for any later run.

    As `fusemix encode`, whose latent store it fills. FUSEMIX_HOME must be a folder that all
    machines share, and so must the data's.

    Examples:

        fusemix ray-encode --a dinov2 --b bge-large --data pairs.csv \\
            --recipe auto --address auto

        fusemix ray-encode -e text=minilm --data pairs.csv --workers 2 \\
            --gpus-per-worker 0
    """
    names, table = encoders.names(), data.table()
    views = checked_views(names, table, encoders.views(), recipe)

    from fusemix_ray.driver import plan_over_ray, run_over_ray

    notes = Notes()
    how = given(dtype=dtype) | encoding.table()
    plan = plan_over_ray(names, table, views=views, tell=notes, **how)
    run = partial(run_over_ray, address=address, workers=workers, gpus_per_worker=gpus_per_worker)
    carry_out(plan, run, output, notes)
