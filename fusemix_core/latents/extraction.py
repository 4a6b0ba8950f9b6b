"""Extraction: encode the items that the latent store lacks, shard by shard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fusemix_core.allocator import keep_freed_memory
from fusemix_core.config import ComputeDtype
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.backends import PROBE_ITEMS, Work
from fusemix_core.latents.batches import GROUP, batch_size_for, group_size, shard_size
from fusemix_core.latents.encoding import Encoding, ItemEncoder, can_accelerate
from fusemix_core.latents.holding import Held
from fusemix_core.latents.returned import Latents
from fusemix_core.latents.sharing import settle
from fusemix_core.latents.store import LatentStore, StoreDtype
from fusemix_core.latents.tables import RaggedLatents, StoredLatents
from fusemix_core.specs import EncoderSpec, kind_of

if TYPE_CHECKING:
    from fusemix_core.data.items import Items

Progress = Callable[[int, int], None]

SHARD_BYTES = 256 << 20
"""float32 bytes at which a shard is complete, however few its items: what 16,384 pooled items take.
Where shards may have more items (`shard_size`), up to 8 times as much. A grid of one picture can
take as much as 500 pooled latents."""

_WIDENED = {
    "range": "hold values that float16 can't",
    "order": "would lose the order of near neighbours as float16",
}


@dataclass
class Extraction:
    """The latents of all items, and how they were had.

    table: memory-mapped; `RaggedLatents` of a view whose items differ in length; bad items have
    rows of zeros, or none. bad: index of an item → why it has no latent. encoded, cached: how many
    items were encoded now and before. warnings: sentences for the user. digest: that of the
    weights, where only the loaded encoder could tell it. dtype: what the encoder computed in.
    """

    table: StoredLatents | RaggedLatents
    fingerprint: str
    bad: dict[int, str]
    encoded: int
    cached: int
    warnings: list[str] = field(default_factory=list)
    digest: str | None = None
    dtype: ComputeDtype = "float32"


def extract(
    spec: EncoderSpec,
    items: Items,
    store: LatentStore,
    how: Encoding = Encoding(),
    *,
    view: str = "pooled",
    ragged: bool = True,
    shard: int | None = None,
    progress: Progress | None = None,
    encoder: Encoder | None = None,
) -> Extraction:
    """The latents of `items`: those that the store lacks are encoded, the others read.

    The encoder is loaded only if it is needed, and freed at the end. An interrupted extraction
    keeps its finished shards, and a later one leaves the same files as without the interruption.

    Args:
        spec: the encoder.
        items: what is encoded.
        store: where latents are kept.
        how: device, dtype, batch and runtime. Several devices fill the store as one does.
        view: what the encoder gives.
        ragged: whether items may differ in length.
        shard: how many items make a shard, if `items` are a part of more.
        progress: called with how many of the missing items are done, and how many there are.
        encoder: used in place of what the spec would load.

    Raises:
        DataError: no item can be read.
        ContractError: the encoder returns anything but finite latents of the view's shape.
        ArtefactError: the store can't be written.
        ConfigError: items differ in length and are not `ragged`, at the first batch.
    """
    settle()
    if how.devices[0].type == "cpu":
        keep_freed_memory()
    held = Held(spec, how.devices, how.dtype, encoder)
    try:
        notes = held.settle(items, view, store.home)
        known, digest = held.fingerprint()
        warnings = notes + store.repair(known, view, items.keys, how.store_dtype)
        missing = np.flatnonzero(store.missing(known, view, items.keys, how.store_dtype))
        bad: dict[int, str] = {}
        if len(missing):
            store.prepare(known, view)
            most = shard or shard_size(len(items))
            target = _Target(store, known, view, how.store_dtype, ragged, most)
            bad, found = _fill(target, missing, items, held, how, progress)
            warnings += found
    finally:
        held.free()
    if len(bad) == len(items):
        raise none_read(spec, bad)
    table = store.open(known, view, items.keys, how.store_dtype, absent=bad)
    if not ragged and isinstance(table, RaggedLatents):
        raise unequal_lengths(spec, view)
    encoded, cached = len(missing) - len(bad), len(items) - len(missing)
    return Extraction(table, known, bad, encoded, cached, warnings, digest, held.dtype)


def none_read(spec: EncoderSpec, bad: Mapping[int, str]) -> DataError:
    """The error of a data set whose items are all `bad`: index → why."""
    return DataError(
        f"None of the {len(bad)} {spec.modality} items could be read.",
        f"The first: {next(iter(bad.values()), 'there are no items')}",
    )


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
    held: Held,
    how: Encoding,
    progress: Progress | None,
) -> tuple[dict[int, str], list[str]]:
    """Encode and store the missing items; (bad items, warnings).

    A function of its own so that nothing contains the encoder when `held` is freed.
    """
    batch = batch_size_for(held.spec, how.batch_size, held.devices[0])
    encoders = held.get(math.ceil(len(missing) / batch.items))
    with ItemEncoder(
        items, target.view, encoders, held.devices, batch, spec=held.spec, workers=how.workers
    ) as encoder:
        warnings = _accelerate(encoder, target, missing, held, how)
        filling = _Filling(encoder, target, items, progress)
        filling.run(missing)
        return encoder.bad, [*warnings, *filling.warnings()]


def _accelerate(
    encoder: ItemEncoder, target: _Target, missing: np.ndarray, held: Held, how: Encoding
) -> list[str]:
    """Put a faster runtime under the encoder if that pays; what the user should know."""
    if not can_accelerate(held.devices, how):
        return []
    home = target.store.home
    work = Work(target.view, target.fingerprint, home, len(missing))
    warning = encoder.accelerate(missing[:PROBE_ITEMS].tolist(), work, how.backend)
    return [warning] if warning else []


class _Filling:
    """Stores what is encoded for one view of the store, shard by shard."""

    def __init__(
        self, encoder: ItemEncoder, target: _Target, items: Items, progress: Progress | None
    ) -> None:
        self.encoder, self.target, self.items = encoder, target, items
        self.spec = encoder.spec
        self.progress = progress or (lambda done, total: None)
        self.done = self.total = 0
        self.shards: Counter[str] = Counter()

    def run(self, missing: np.ndarray) -> None:
        """Encode the items `missing` (sorted indices) and store them.

        A shard is as many whole groups as reach the target's `most` items or its bytes. No
        batch crosses a group, and a group depends on nothing before it: so what follows a shard is
        the same whether or not the run was stopped in between.
        """
        self.total = len(missing)
        self.progress(0, self.total)
        most = self.target.most
        full = SHARD_BYTES * min(max(most // GROUP, 1), 8)
        size = group_size(self.spec, self.target.view, self.encoder.batch.items, most)
        current, groups, held, rows = 0, 1, 0, []
        # One thread writes a shard while the next is encoded; leaving waits for it.
        with ThreadPoolExecutor(1, "fusemix-write") as writer:
            written = writer.submit(self._store, [])
            for batch in self.encoder.encoded(missing.tolist(), size):
                if batch.group != current:
                    if groups * size >= most or held >= full:
                        written.result()
                        written = writer.submit(self._store, rows)
                        groups, held, rows = 0, 0, []
                    current, groups = batch.group, groups + 1
                for index, latents in batch.parts():
                    if latents.lengths is not None and not self.target.ragged:
                        raise unequal_lengths(self.spec, self.target.view)
                    self._count(len(index))
                    rows.append((index, latents))
                    held += latents.values.nbytes
            written.result()
            self._store(rows)
        self.progress(self.total, self.total)

    def _count(self, items: int) -> None:
        self.done += items
        self.progress(min(self.done + len(self.encoder.bad), self.total), self.total)

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
        warnings = [
            f"{self.shards[fault]} of {self.shards['all']} shards of {self.spec.name} {why}: "
            "stored as float32."
            for fault, why in _WIDENED.items()
            if self.shards[fault]
        ]
        if self.encoder.cut:
            limit = (
                f"{self.spec.max_tokens} tokens" if self.spec.max_tokens else "the encoder takes"
            )
            warnings.append(
                f"{self.encoder.cut} of {self.done} {self.spec.modality} items are longer than "
                f"{limit} and were cut by {self.spec.name}."
            )
        warnings += [
            f"{count:,} of {self.done:,} {self.spec.modality} items {note}."
            for note, count in self.encoder.notes.items()
        ]
        return [*warnings, *self.encoder.warnings()]
