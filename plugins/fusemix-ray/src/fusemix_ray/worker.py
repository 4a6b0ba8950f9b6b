"""What runs on the machines of a cluster: an encoder, loaded once, that fills the latent store."""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from fusemix_core.data.items import Items
from fusemix_core.data.references import Cells
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ArtefactError, ConfigError, DataError, FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.cutting import BatchSize
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.pipeline import Pipeline
from fusemix_core.latents.remote import store_at
from fusemix_core.specs import load_target
from fusemix_core.userfile import import_file
from fusemix_ray.job import Job
from fusemix_ray.table import read_block

_PIECE = 64


class Worker:
    """Encodes blocks of items, one a call, into the latent store: an actor of Ray Data.

    It reads its blocks from the job's table. cells: the tables that this one refers to by number;
    given: the encoder's class if it is the user's own object.
    """

    def __init__(
        self, job: Job, cells: Sequence[Cells] = (), given: ray.ObjectRef | None = None
    ) -> None:
        self.job, self.cells, self.given = job, cells, given
        self.store = store_at(job.how.store, Path(job.home))
        self.encoder: Encoder | None = None

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list]:
        """For one block number, the number and a report: JSON of what `fill` returns, or an
        `error`."""
        (number,) = rows["block"].tolist()
        try:
            items = self._read(number)
            self._count_attempt(number, items)
            report = self.fill(items)
        except FusemixError as error:
            report = {"error": [type(error).__name__, f"{error.message}{_here()}", error.hint]}
        return {"block": [number], "report": [json.dumps(report)]}

    def fill(self, items: Items) -> dict[str, Any]:
        """Encode what the store lacks of a block; counts, bad items and warnings."""
        if self.encoder is None:
            self.encoder = load(self.job, self.given)
        try:
            done = extract(
                self.job.spec,
                items,
                self.store,
                replace(self.job.how, device=own_device(), workers=self.job.cpus),
                view=self.job.view,
                shard=self.job.shard,
                encoder=self.encoder,
            )
        except DataError:
            bad = self._unreadable(items)
            if len(bad) < len(items):
                raise
            return {"encoded": 0, "bad": bad, "warnings": []}
        return {"encoded": len(items) - len(done.bad), "bad": done.bad, "warnings": done.warnings}

    def _read(self, number: int) -> Items:
        job = self.job
        try:
            return read_block(job.table, number, job.spec.modality, job.takes, self.cells)
        except OSError as error:
            raise ArtefactError(
                f"The table of items {job.table} can't be read: {error.strerror or error}.",
                "Set FUSEMIX_HOME to a folder that all machines of the cluster share.",
            ) from error

    def _count_attempt(self, number: int, items: Items) -> None:
        """Raise `FusemixError` if this block has killed as many workers as it may: Ray would go on
        for ever."""
        with open(Path(self.job.attempts) / str(number), "ab") as file:
            file.write(b".")
            begun = file.tell()
        if begun > self.job.lives:
            raise FusemixError(
                f"The block of {len(items)} {items.modality} items that begins with "
                f"'{items.describe(0)[:80]}' killed its worker {self.job.lives} times.",
                "Often it is want of memory: give a smaller --encode-batch, or fewer --workers. "
                "Finished shards are kept.",
            )

    def _unreadable(self, items: Items) -> dict[int, str]:
        """Why items can't be read. `extract` tells only if others can; a block may have none."""
        assert self.encoder is not None  # `fill` has loaded it
        with Pipeline(self.job.spec, items, self.encoder, self.job.cpus) as pipeline:
            deque(pipeline.batches(range(len(items)), BatchSize(_PIECE), _PIECE), maxlen=0)
        return pipeline.bad


def load(job: Job, given: ray.ObjectRef | None = None) -> Encoder:
    """The encoder of a job, on this process's own device.

    Raises `ConfigError` if its class is not to be had here, `ArtefactError` if its weights or its
    plugin are not those of the machine that gave the job.
    """
    os.environ.update(job.secrets)
    torch.set_num_threads(job.cpus)
    target = _target(job, given)
    encoder = target.load(job.spec, own_device(), getattr(torch, job.how.dtype))
    if job.fingerprint and found_fingerprint(job, encoder) != job.fingerprint:
        raise ArtefactError(
            f"{job.spec.name} is not the same encoder on this machine as where the job began.",
            "Give all machines the same weights and the same versions of fusemix and its plugins.",
        )
    return encoder


def found_fingerprint(job: Job, encoder: Encoder) -> str:
    """What the store knows the encoder by, as it is on this machine."""
    known = fingerprint(job.spec, job.how.dtype)
    return known or fingerprint(job.spec, job.how.dtype, encoder.weights_digest)


def _target(job: Job, given: ray.ObjectRef | None) -> Any:
    if job.file:
        if not Path(job.file).is_file():
            raise ConfigError(
                f"{job.file}, which contains {job.spec.name}, does not exist.",
                "Put it in a folder that all machines share, or make a package of it that is "
                "installed on each: fusemix new-plugin",
            )
        import_file(Path(job.file))
    if given is None:
        return load_target(job.spec.target)
    try:
        return ray.get(given)
    except Exception as error:
        raise ConfigError(
            f"The class of {job.spec.name} can't be imported: {_last_line(error)}",
            "Name it by its file, in a folder that all machines share: ./my_encoder.py:MyEncoder",
        ) from error


def own_device() -> torch.device:
    """The accelerator that Ray gave this process, else the CPU."""
    granted = ray.get_runtime_context().get_accelerator_ids()
    return resolve_device("auto" if any(granted.values()) else "cpu")


def _here() -> str:
    return f" (On {socket.gethostname()}.)"


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
