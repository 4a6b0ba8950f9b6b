"""Extraction: encode the items that the latent store lacks, shard by shard."""

from __future__ import annotations

import contextlib
import gc
import math
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fusemix_core.allocator import keep_freed_memory
from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, ContractError, DataError, FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.backends import PROBE_ITEMS, Backend, Work, accelerate, failure
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.pipeline import SORT_BATCHES, BatchSize, Collated, Pipeline
from fusemix_core.latents.returned import Latents, latents_of
from fusemix_core.latents.store import LatentStore, StoreDtype
from fusemix_core.latents.tables import RaggedLatents, StoredLatents
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec, kind_of

if TYPE_CHECKING:
    from fusemix_core.data.items import Items

Progress = Callable[[int, int], None]

SHARD_BYTES = 256 << 20
"""float32 bytes at which a shard is complete, however few its items: what the largest pooled shards
take. A grid of one picture can take as much as 500 pooled latents."""

_WIDENED = {
    "range": "hold values that float16 can't",
    "order": "would lose the order of near neighbours as float16",
}


@dataclass
class Extraction:
    """The latents of all items, and how they were had.

    table: memory-mapped; `RaggedLatents` of a view whose items differ in length; bad items have
    rows of zeros, or none. bad: index of an item → why it has no latent. encoded, cached: how many
    items were encoded now and before. warnings: sentences for the user.
    """

    table: StoredLatents | RaggedLatents
    fingerprint: str
    bad: dict[int, str]
    encoded: int
    cached: int
    warnings: list[str] = field(default_factory=list)


def extract(
    spec: EncoderSpec,
    items: Items,
    store: LatentStore,
    *,
    view: str = "pooled",
    ragged: bool = True,
    device: torch.device | str | Sequence[torch.device | str],
    dtype: str = "float32",
    store_dtype: StoreDtype = "float16",
    batch_size: int | None = None,
    backend: Backend = "auto",
    workers: int | None = None,
    shard: int | None = None,
    progress: Progress | None = None,
    encoder: Encoder | None = None,
) -> Extraction:
    """The latents of `items`: those that the store lacks are encoded, the others read.

    The encoder is loaded only if something is missing (or only it can tell its fingerprint) and
    freed at the end; a given `encoder` is used instead and stays. Of several devices each has an
    encoder of its own, and the store is filled as by one. `backend`: see `accelerate`, which is
    asked on a CPU alone and in float32. Without `batch_size` texts come under a budget of tokens,
    and sounds of seconds. `progress(done, total)` counts missing items. `shard`, how many items
    make a shard, follows from how many there are; give it where `items` are a part of more. An
    interrupted extraction keeps its finished shards, and a later one leaves the same files as if it
    had not been interrupted.

    Raises DataError if no item can be read, ContractError if the encoder returns anything but
    finite latents of the view's shape, ArtefactError if the store can't be written; without
    `ragged` ConfigError, at the first batch, if items differ in length.
    """
    several = isinstance(device, Sequence) and not isinstance(device, str)
    devices = [torch.device(d) for d in (device if several else [device])]
    if devices[0].type == "cpu":
        keep_freed_memory()
    held = _Held(spec, devices, dtype, encoder)
    try:
        known = fingerprint(spec, dtype)
        if known is None:
            known = fingerprint(spec, dtype, held.get()[0].weights_digest)
        warnings = store.repair(known, view, items.keys, store_dtype)
        missing = np.flatnonzero(store.missing(known, view, items.keys, store_dtype))
        bad: dict[int, str] = {}
        if len(missing):
            store.prepare(known, view)
            most = shard or shard_size(len(items))
            target = _Target(store, known, view, store_dtype, ragged, most)
            size = batch_size_for(spec, batch_size, devices[0])
            bad, said = _fill(target, missing, items, held, size, backend, workers, progress)
            warnings += said
    finally:
        held.free()
    if len(bad) == len(items):
        raise DataError(
            f"None of the {len(items)} {spec.modality} items could be read.",
            f"The first: {next(iter(bad.values()), 'there are no items')}",
        )
    table = store.open(known, view, items.keys, store_dtype, absent=bad)
    if not ragged and isinstance(table, RaggedLatents):
        raise unequal_lengths(spec, view)
    encoded = len(missing) - len(bad)
    return Extraction(table, known, bad, encoded, len(items) - len(missing), warnings)


def unequal_lengths(spec: EncoderSpec, view: str) -> ConfigError:
    """What to say where rows of one width are needed and items differ in length."""
    pooled = [v for v in spec.views if kind_of(v) == "pooled"]
    example = f", such as '{pooled[0]}'" if pooled else ""
    return ConfigError(
        f"The view '{view}' of {spec.name} gives items of different length, and rows of one width "
        "are needed here.",
        f"Take a view in which all items have one shape{example} (views of {spec.name}: "
        f"{', '.join(spec.views)}), or in a fit an adapter that takes tokens.",
    )


def shard_size(items: int) -> int:
    """Items a shard: about 256 shards for the whole, each of 1,024 to 16,384 items.

    A kill costs one shard; a gather of random rows visits all of them.
    """
    return min(max(1 << (items // 256).bit_length(), 1024), 16384)


def batch_size_for(spec: EncoderSpec, given: int | None, device: torch.device) -> BatchSize:
    """The batch for what the encoder takes: as given, as its spec says, or its medium's default.

    Longer items than are usual come fewer at once, shorter texts more.
    """
    if exact := given or spec.batch:
        return BatchSize(exact)
    how = medium(registry.settled(spec).takes)
    items, usual = how.batch[device.type != "cpu"], how.usual_length(spec)
    return BatchSize(items, usual and items * usual, stretch=how.inline)


def group_size(spec: EncoderSpec, view: str, batch_size: int, shard: int) -> int:
    """Items that are encoded before a shard may be found complete by its bytes.

    A whole shard of pooled latents; of others, which can be hundreds of times larger, a few
    batches, sorted by length where that saves padding.
    """
    if kind_of(view) == "pooled":
        return shard
    how = medium(registry.settled(spec).takes)
    return batch_size * (SORT_BATCHES // 2 if how.usual_length(spec) else 1)


@dataclass(frozen=True)
class _Target:
    """Where latents go: one view of one encoder in the store, `most` items a shard. Not
    `ragged`: of one shape only."""

    store: LatentStore
    fingerprint: str
    view: str
    dtype: StoreDtype
    ragged: bool
    most: int


def _fill(
    target: _Target,
    missing: np.ndarray,
    items: Items,
    held: _Held,
    batch: BatchSize,
    backend: Backend,
    workers: int | None,
    progress: Progress | None,
) -> tuple[dict[int, str], list[str]]:
    """Encode and store the missing items; (bad items, warnings).

    A function of its own so that nothing holds the encoder when `held` is freed.
    """
    encoders = held.get(math.ceil(len(missing) / batch.items))
    with Pipeline(held.spec, items, encoders[0], workers) as pipeline:
        said = _accelerate(pipeline, target, missing, held, backend)
        job = _Job(pipeline, target, encoders, held.devices[0], batch, progress)
        job.run(missing)
    return dict(sorted(pipeline.bad.items())), [*said, *job.warnings()]


def _accelerate(
    pipeline: Pipeline, target: _Target, missing: np.ndarray, held: _Held, backend: Backend
) -> list[str]:
    """Put a faster runtime under the encoder where that pays; what the user should know."""
    on_cpu = [d.type for d in held.devices] == ["cpu"]
    if not on_cpu or held.dtype != "float32":
        if backend == "openvino":
            raise ConfigError(
                f"OpenVINO encodes on the CPU in float32, not on {held.devices[0]} "
                f"in {held.dtype}.",
                "Leave out --backend, or add --device cpu --dtype float32.",
            )
        return []

    def probe() -> Any:
        return pipeline.collate(missing[:PROBE_ITEMS].tolist()).batch

    home = target.store.folder.parent
    work = Work(target.view, target.fingerprint, home, len(missing))
    said = accelerate(pipeline.encoder, work, probe, backend)
    return [said] if said else []


class _Held:
    """The encoders, one a device, loaded when first asked for."""

    def __init__(
        self,
        spec: EncoderSpec,
        devices: list[torch.device],
        dtype: str,
        given: Encoder | None,
    ) -> None:
        self.spec, self.dtype, self.given = spec, dtype, given
        self.devices = devices if given is None else devices[:1]
        self.loaded: list[Encoder] = []

    def get(self, most: int = 1) -> list[Encoder]:
        """Of at most `most` devices, and of one at least."""
        if self.given is not None:
            return [self.given]
        for device in self.devices[len(self.loaded) : most]:
            target = registry.target_of(self.spec)
            self.loaded.append(target.load(self.spec, device, getattr(torch, self.dtype)))
        return self.loaded

    def free(self) -> None:
        """Let go of the encoders and of the device memory that they took."""
        if self.given is not None:
            self.given.runtime = None
        if self.loaded:
            self.loaded = []
            gc.collect()
            for device in self.devices:
                _empty_cache(device)


class _Job:
    """Encodes the missing items of one store view, by one encoder a device."""

    def __init__(
        self,
        pipeline: Pipeline,
        target: _Target,
        encoders: list[Encoder],
        device: torch.device,
        batch: BatchSize,
        progress: Progress | None,
    ) -> None:
        self.pipeline, self.target, self.device = pipeline, target, device
        self.spec, self.items, self.encoders = pipeline.spec, pipeline.items, encoders
        self.batch, self.limit = batch, math.inf
        self.progress = progress or (lambda done, total: None)
        self.form: tuple[bool, tuple[int, ...]] | None = None
        self.done = self.total = self.cut = 0
        self.shards: Counter[str] = Counter()

    def run(self, missing: np.ndarray) -> None:
        """Encode the items `missing` (sorted indices) and store them.

        A shard is as many whole groups as reach the target's `most` items or `SHARD_BYTES`. No
        batch crosses a group, and a group depends on nothing before it: so what follows a shard is
        the same whether or not the run was stopped in between.
        """
        self.total = len(missing)
        self.progress(0, self.total)
        most = self.target.most
        size = group_size(self.spec, self.target.view, self.batch.items, most)
        current, groups, held, rows = 0, 1, 0, []
        batches = self.pipeline.batches(missing.tolist(), self.batch, size)
        # One thread writes a shard while the next is encoded; leaving waits for it.
        with ThreadPoolExecutor(1, "fusemix-write") as writer, self._encoded(batches) as encoded:
            written = writer.submit(self._store, [])
            for group, cut, latents_of_batch in encoded:
                if group != current:
                    if groups * size >= most or held >= SHARD_BYTES:
                        written.result()
                        written = writer.submit(self._store, rows)
                        groups, held, rows = 0, 0, []
                    current, groups = group, groups + 1
                self.cut += cut
                for index, latents in latents_of_batch():
                    self._check_form(latents)
                    self._count(len(index))
                    rows.append((index, latents))
                    held += latents.values.nbytes
            written.result()
            self._store(rows)
        self.progress(self.total, self.total)

    @contextlib.contextmanager
    def _encoded(
        self, batches: Iterable[tuple[int, Collated]]
    ) -> Iterator[Iterator[tuple[int, int, Callable[[], Iterable[tuple[list[int], Latents]]]]]]:
        """(group, items cut, what gives the latents) of the batches, in their order: encoded here
        when asked for, or ahead, by whichever device is free, in a thread a device."""
        if len(self.encoders) == 1:
            yield (
                (group, batch.cut, partial(self._encode, self.encoders[0], batch))
                for group, batch in batches
            )
            return
        pool = ThreadPoolExecutor(len(self.encoders), "fusemix-device")
        try:
            yield self._ahead(pool, batches)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ahead(
        self, pool: ThreadPoolExecutor, batches: Iterable[tuple[int, Collated]]
    ) -> Iterator[tuple[int, int, Callable[[], Iterable[tuple[list[int], Latents]]]]]:
        free: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
        for encoder in self.encoders:
            free.put(encoder)

        def encode(batch: Collated) -> list[tuple[list[int], Latents]]:
            encoder = free.get()
            try:
                return list(self._encode(encoder, batch))
            finally:
                free.put(encoder)

        ahead: deque[tuple[int, int, Callable]] = deque()
        for group, batch in batches:
            ahead.append((group, batch.cut, pool.submit(encode, batch).result))
            if len(ahead) > 2 * len(self.encoders):
                yield ahead.popleft()
        yield from ahead

    def _count(self, items: int) -> None:
        self.done += items
        self.progress(min(self.done + len(self.pipeline.bad), self.total), self.total)

    def _encode(self, encoder: Encoder, batch: Collated) -> Iterator[tuple[list[int], Latents]]:
        """(items, latents) of a batch, halved for as long as the device has not room."""
        index = batch.index
        if not index:
            return
        if len(index) <= self.limit:
            latents = self._attempt(encoder, batch)
            if latents is not None:
                yield index, latents
                return
            self._halve(len(index))
        size = int(self.limit)
        for at in range(0, len(index), size):
            yield from self._encode(encoder, self.pipeline.collate(index[at : at + size]))

    def _attempt(self, encoder: Encoder, batch: Collated) -> Latents | None:
        """The checked latents, or None if the device is out of memory."""
        try:
            with torch.no_grad():
                returned = encoder.encode(batch.batch, self.target.view)
            return latents_of(
                self.spec,
                self.target.view,
                returned,
                len(batch.index),
                lambda i: self.items.describe(batch.index[i]),
            )
        except torch.OutOfMemoryError:
            return None

    def _check_form(self, latents: Latents) -> None:
        """Raise `ContractError` where batches differ in form."""
        if self.form is None:
            self.form = latents.form
            if latents.lengths is not None and not self.target.ragged:
                raise unequal_lengths(self.spec, self.target.view)
        if self.form != latents.form:
            (was_ragged, shape), (ragged, now) = self.form, latents.form
            raise ContractError(
                f"Encoder '{self.spec.name}'",
                f"{'padded ' if was_ragged else ''}latents of shape {list(shape)} as before",
                f"{'padded ' if ragged else ''}{list(now)}",
            )

    def _halve(self, rows: int) -> None:
        if rows == 1:
            raise FusemixError(
                f"{self.device} has not memory enough for {self.spec.name} to encode one item.",
                "Use --dtype float16, a smaller encoder, or --device cpu.",
            )
        self.limit = min(self.limit, (rows + 1) // 2)
        _empty_cache(self.device)

    def _store(self, rows: list[tuple[list[int], Latents]]) -> None:
        """Write what was encoded as one shard, in the order of the items."""
        if not rows:
            return
        index = np.concatenate([np.asarray(i, np.int64) for i, _ in rows])
        order = np.argsort(index)
        values = np.concatenate([latents.values for _, latents in rows])
        lengths = None
        if rows[0][1].lengths is None:
            values = values[order]
        else:
            lengths = np.concatenate([latents.lengths for _, latents in rows])
            parts = np.split(values, np.cumsum(lengths)[:-1])
            values, lengths = np.concatenate([parts[i] for i in order]), lengths[order]
        _, fault = self.target.store.write(
            self.target.fingerprint,
            self.target.view,
            self.items.keys[index[order]],
            values,
            lengths,
            spec=self.spec,
            store_dtype=self.target.dtype,
        )
        self.shards["all"] += 1
        self.shards[fault] += 1

    def warnings(self) -> list[str]:
        """What the user should know of the run, a sentence each."""
        said = [
            f"{self.shards[fault]} of {self.shards['all']} shards of {self.spec.name} {why}: "
            "stored as float32."
            for fault, why in _WIDENED.items()
            if self.shards[fault]
        ]
        if self.cut:
            limit = (
                f"{self.spec.max_tokens} tokens" if self.spec.max_tokens else "the encoder takes"
            )
            said.append(
                f"{self.cut} of {self.done} {self.spec.modality} items are longer than {limit} "
                f"and were cut by {self.spec.name}."
            )
        if self.limit < math.inf:
            said.append(f"Batches of {self.spec.name} were cut to {self.limit} to fit in memory.")
        encoder = self.encoders[0]
        return [*said, *failure(encoder), *encoder.notes()]


def _empty_cache(device: torch.device) -> None:
    """Give cached memory of an accelerator back."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
