"""Extraction over a cluster: the missing items cut into blocks of a shard each, a Ray Data job over
these, and what its workers report put together."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from fusemix_core import errors
from fusemix_core.data.items import Items
from fusemix_core.data.references import Cells
from fusemix_core.errors import DataError, FusemixError
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import Extraction, Progress, shard_size
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.remote import RemoteStore
from fusemix_core.latents.store import LatentStore
from fusemix_core.specs import EncoderSpec
from fusemix_ray.cluster import Layout
from fusemix_ray.job import Job, shared_environment
from fusemix_ray.table import FOLDER, Table, strays
from fusemix_ray.worker import Worker, found_fingerprint, load

_LIVES = 5
"""How many workers a block may kill before it ends the run."""


def extract(
    spec: EncoderSpec,
    items: Items,
    store: LatentStore,
    layout: Layout,
    how: Encoding,
    *,
    view: str,
    given: type | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """`fusemix_core.latents.extraction.extract` on the workers of `layout`.

    given: the encoder's class, where the user gave that and no name. `progress(done, total)` counts
    the items of finished blocks. Workers take all of `how` but the device. Blocks are the shards of
    a run on one machine as long as no item is bad and shards are not cut by their bytes. Raises
    what the other does.
    """
    home = str(store.home)
    if isinstance(store, RemoteStore):
        how = replace(how, store=store.place)
    environment, secrets = shared_environment(spec, home, objects=how.store is not None)
    size = shard_size(len(items))
    known = fingerprint(spec, how.dtype) or ""
    file = _user_file(spec)
    job = Job(spec, how, view, size, known, file, home, layout.cpus, secrets, items.takes)
    on = _Cluster(layout, environment, None if given is None else ray.put(given))
    if not job.fingerprint:
        job = replace(job, fingerprint=on.fingerprint(job))
    known = job.fingerprint
    warnings = store.repair(known, view, items.keys, how.store_dtype)
    missing = np.flatnonzero(store.missing(known, view, items.keys, how.store_dtype))
    found = _Found()
    if len(missing):
        store.prepare(known, view)
        blocks = np.split(missing, range(size, len(missing), size))
        tell = progress or (lambda done, total: None)
        done = 0
        tell(done, len(missing))
        for folder in strays(store.home):
            shutil.rmtree(folder, ignore_errors=True)
        with (
            tempfile.TemporaryDirectory(prefix=FOLDER, dir=home) as attempts,
            Table(Path(attempts)) as table,
        ):
            table.write(items, blocks)
            job = replace(job, attempts=attempts, lives=_LIVES)
            for number, report in on.reports(job, len(blocks), list(table.cells)):
                table.touch()
                found.add(blocks[number], report)
                done += len(blocks[number])
                tell(done, len(missing))
    if len(found.bad) == len(items):
        raise DataError(
            f"None of the {len(items)} {spec.modality} items could be read.",
            f"The first: {next(iter(found.bad.values()), 'there are no items')}",
        )
    opened = store.open(known, view, items.keys, how.store_dtype, absent=found.bad)
    cached = len(items) - len(missing)
    bad = dict(sorted(found.bad.items()))
    return Extraction(opened, known, bad, found.encoded, cached, warnings + found.sentences())


@dataclass(frozen=True)
class _Cluster:
    """Where workers run: what each has, the environment it starts in, and the class to load."""

    layout: Layout
    environment: Mapping[str, str]
    given: ray.ObjectRef | None

    @property
    def _each(self) -> dict[str, Any]:
        return {
            "num_cpus": self.layout.cpus,
            "num_gpus": self.layout.gpus,
            "runtime_env": {"env_vars": dict(self.environment)},
        }

    def fingerprint(self, job: Job) -> str:
        """The fingerprint of an encoder that must be loaded to tell it."""

        def ask(given: list) -> str | list[str]:
            try:
                return found_fingerprint(job, load(job, *given))
            except FusemixError as error:
                return [type(error).__name__, error.message, error.hint]

        # In a list, so that the worker fetches it and explains a failure.
        found = ray.get(ray.remote(**self._each)(ask).remote([self.given]))
        if isinstance(found, list):
            raise _error(*found)
        return found

    def reports(
        self, job: Job, blocks: int, cells: Sequence[Cells]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """(block number, report of `Worker.fill`) of each block, as they are finished.

        Raises the `FusemixError` that a worker met.
        """
        for number, text in self._texts(job, blocks, cells):
            report = json.loads(text)
            if "error" in report:
                raise _error(*report["error"])
            yield number, report

    def _texts(self, job: Job, blocks: int, cells: Sequence[Cells]) -> Iterator[tuple[int, str]]:
        """What the workers answer. Of the items Ray gets the path of their table and the numbers of
        its blocks. A worker that dies is started again, and its blocks with it."""
        _quieten()
        job_data = ray.data.from_items(
            [{"block": i} for i in range(blocks)], override_num_blocks=blocks
        ).map_batches(
            Worker,
            fn_constructor_args=(job, cells, self.given),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.layout.workers, blocks)),
            **self._each,
        )
        for rows in job_data.iter_batches(batch_size=None, prefetch_batches=0):
            yield from zip(rows["block"].tolist(), rows["report"].tolist(), strict=True)


@dataclass
class _Found:
    """What the workers reported: bad items by their index among all, counts, warnings."""

    bad: dict[int, str] = field(default_factory=dict)
    encoded: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, block: np.ndarray, report: dict[str, Any]) -> None:
        self.bad |= {int(block[int(i)]): reason for i, reason in report["bad"].items()}
        self.encoded += report["encoded"]
        self.warnings += report["warnings"]

    def sentences(self) -> list[str]:
        """The warnings; of those that differ in their numbers only, the first and how many."""
        alike: dict[str, list[str]] = {}
        for warning in self.warnings:
            alike.setdefault(re.sub(r"\d+", "#", warning), []).append(warning)
        return [
            same[0] if len(same) == 1 else f"{same[0]} (So in {len(same)} blocks; this is one.)"
            for same in alike.values()
        ]


def _user_file(spec: EncoderSpec) -> str:
    """The file of a class that was named by file, which a worker must import itself; or ""."""
    module = spec.target.partition(":")[0]
    if "." in module or not module.startswith("fusemix_user_"):
        return ""
    return str(getattr(sys.modules.get(module), "__file__", ""))


def _error(kind: str, message: str, hint: str) -> FusemixError:
    """A worker's error, of its own class, whose constructor may take other arguments."""
    cls = getattr(errors, kind, FusemixError)
    error = cls.__new__(cls)
    FusemixError.__init__(error, message, hint)
    return error


def _quieten() -> None:
    """Ray's own bars and notes off: progress is told in items."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
