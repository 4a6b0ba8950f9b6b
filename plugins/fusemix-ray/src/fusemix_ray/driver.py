"""`fusemix_core.encode` on a cluster: the driver plans and counts, workers encode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusemix_core.errors import ConfigError
from fusemix_core.home import home
from fusemix_core.jobs.encode import EncodingPlan, plan_encoding
from fusemix_core.latents.backends import Backend
from fusemix_core.latents.extraction import Extraction
from fusemix_core.latents.remote import store_at
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.inputs import EncoderInput
from fusemix_core.runs.reporter import Reporter
from fusemix_ray.cluster import check_machines, connected, lay_out
from fusemix_ray.extraction import extract


def encode(
    encoders: Mapping[str, EncoderInput],
    data: str | Path | Mapping[str, Any],
    *,
    views: Mapping[str, str] | None = None,
    dtype: str = "float32",
    store_dtype: str = "float16",
    encode_batch: int | None = None,
    backend: Backend = "auto",
    store: str | None = None,
    decode_processes: int | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    reporter: Reporter | None = None,
) -> Encoded:
    """As `fusemix_core.encode`, on the machines of a Ray cluster; what `fusemix ray-encode` does.

    encoders: modality → registered name, or Encoder class; a loaded Encoder can't travel. address:
    of the cluster, `auto` for the one that this machine is part of; by default Ray's own (this
    machine only, unless `RAY_ADDRESS` says otherwise). workers: how many encode at once, by
    default as many as there are GPUs, or machines if there are none. gpus_per_worker: by default
    1 if the cluster has GPUs. store: the object store to keep latents in, such as
    `s3://bucket/prefix`. `$FUSEMIX_HOME` and the files of the data must be the same to all
    machines. A run that is stopped, or a worker that dies, leaves its finished shards.

    Raises a `FusemixError` for anything that the caller can mend.
    """
    plan = plan_over_ray(
        encoders,
        data,
        views=views,
        dtype=dtype,
        store_dtype=store_dtype,
        encode_batch=encode_batch,
        backend=backend,
        store=store,
        decode_processes=decode_processes,
        tell=reporter and reporter.note,
    )
    given = {m: e for m, e in encoders.items() if isinstance(e, type)}
    return run_over_ray(
        plan,
        reporter,
        address=address,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        given=given,
    )


def plan_over_ray(
    encoders: Mapping[str, EncoderInput], data: str | Path | Mapping[str, Any], **how: Any
) -> EncodingPlan:
    """What `encode` of the same arguments will do; nothing of Ray is needed to tell.

    The workers of a cluster may differ, so `dtype="auto"` is float32 here.
    """
    if how.get("dtype", "auto") == "auto":
        how["dtype"] = "float32"
    plan = plan_encoding(encoders, data, device="cpu", **how)
    if plan.objects:
        raise ConfigError(
            f"The {', '.join(plan.objects)} encoder is a loaded object, which can't be sent to "
            "other machines.",
            "Give its name or its class.",
        )
    for part in plan.encoders.values():
        part.seconds = None  # what this machine took for it says nothing of a cluster
    return plan


def run_over_ray(
    plan: EncodingPlan,
    reporter: Reporter | None = None,
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    given: Mapping[str, type] | None = None,
) -> Encoded:
    """Carry out the plan."""
    reporter = reporter or Reporter()
    extractions: dict[str, Extraction] = {}
    # One folder to all machines, whatever their users' own homes are.
    shared = home().resolve()
    with connected(address):
        import ray

        layout = lay_out(ray.nodes(), workers, gpus_per_worker)
        check_machines(shared)
        for modality, part in plan.encoders.items():
            done = extract(
                part.spec,
                plan.dataset.items[modality],
                store_at(plan.how.store, shared),
                layout,
                plan.how,
                view=part.view,
                given=(given or {}).get(modality),
                progress=lambda n, total, name=part.spec.name: reporter.encoding(name, n, total),
            )
            extractions[modality] = done
    encoded = Encoded.of(plan.dataset, extractions)
    for warning in encoded.warnings:
        reporter.note(warning)
    encoded.dataset.check_bad(plan.max_bad)
    return encoded
