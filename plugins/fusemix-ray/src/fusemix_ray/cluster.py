"""The Ray cluster: reached or started, its machines checked, workers laid out on them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_ray.machine import sees


@dataclass(frozen=True)
class Layout:
    """How many workers, and what each has of the machine it is on."""

    workers: int
    cpus: int
    gpus: float


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, `auto` for the one that this machine is part of.

    A connection that the process has already is used and kept. Without an address Ray goes by
    `RAY_ADDRESS`, else starts on this machine only. Raises `ConfigError` if it can't be reached.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = {"logging_level": logging.WARNING, "log_to_driver": False}
    if not (address or os.environ.get("RAY_ADDRESS")):
        started["include_dashboard"] = False
    try:
        ray.init(address, **started)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"There is no Ray cluster at '{address or os.environ.get('RAY_ADDRESS')}': {error}",
            "Start one with `ray start --head`, or leave --address out to use this machine only.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def lay_out(nodes: list[dict], workers: int | None, gpus: float | None) -> Layout:
    """Workers for the machines `nodes`, as `ray.nodes()` tells of them.

    gpus: GPUs a worker; by default 1 if the cluster has any, else 0. workers: by default as many
    as the GPUs allow, one a machine if there are none. Each machine's cores are shared out among
    its workers. Raises `ConfigError` if there is no such room.
    """
    has = [n["Resources"] for n in nodes if n["Alive"]]
    if gpus is None:
        gpus = 1.0 if any(h.get("GPU", 0) >= 1 for h in has) else 0.0
    if gpus < 0 or (workers is not None and workers < 1):
        raise ConfigError("Workers are 1 or more, and GPUs for each 0 or more.")
    has = [h for h in has if h.get("CPU", 0) >= 1 and h.get("GPU", 0) >= gpus]
    if not has:
        raise ConfigError(
            f"No machine of the Ray cluster has {f'{gpus:g} GPUs' if gpus else 'a CPU'} to give.",
            "See `ray status`; --gpus-per-worker 0 encodes on CPUs.",
        )
    if gpus:
        room = [min(int(h["GPU"] / gpus + 1e-9), int(h["CPU"])) for h in has]
    elif workers is None:
        room = [1] * len(has)
    else:
        room = [min(math.ceil(workers / len(has)), int(h["CPU"])) for h in has]
    if workers is not None and workers > sum(room):
        raise ConfigError(
            f"The Ray cluster has room for {sum(room)} workers, not {workers}.",
            "Give fewer --workers, or fewer --gpus-per-worker.",
        )
    cpus = min(int(h["CPU"]) // r for h, r in zip(has, room, strict=True))
    return Layout(workers or sum(room), max(1, cpus), gpus)


def check_machines(home: Path) -> None:
    """Raise `ArtefactError` if a machine of the cluster does not see the folder `home`, and
    `ConfigError` if it has another fusemix or Python than this one."""
    home.mkdir(parents=True, exist_ok=True)
    marker = home / f".ray-{uuid.uuid4().hex}"
    here = ray.remote(num_cpus=0)(sees)
    nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]
    try:
        marker.touch()
        asked = [
            here.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(str(marker))
            for node in nodes
        ]
        answers = ray.get(asked)
    except OSError as error:
        raise ArtefactError(
            f"{home} can't be written: {error.strerror or error}.",
            "Set FUSEMIX_HOME to a folder that all machines of the cluster share.",
        ) from error
    except RayError as error:
        raise ConfigError(
            f"A machine of the Ray cluster can't run fusemix-ray: {str(error).strip()[-300:]}",
            "Install fusemix, fusemix-ray and the encoder's plugin on each, in the same versions.",
        ) from error
    finally:
        marker.unlink(missing_ok=True)
    blind = sorted({name for name, seen, _ in answers if not seen})
    if blind:
        raise ArtefactError(
            f"The latent store {home} is not seen by {', '.join(blind)}.",
            "Set FUSEMIX_HOME to a folder that all machines of the cluster share, such as NFS.",
        )
    mine = sees(str(marker))[2]
    if others := sorted({f"{name} has {what}" for name, _, what in answers if what != mine}):
        raise ConfigError(
            f"Here is {mine}, but {', '.join(others)}.", "Give all machines the same versions."
        )
