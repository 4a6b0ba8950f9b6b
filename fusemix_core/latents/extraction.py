"""Extraction: encode the items that the latent store lacks, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fusemix_core.allocator import keep_freed_memory
from fusemix_core.config import ComputeDtype
from fusemix_core.errors import DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.backends import PROBE_ITEMS, Work
from fusemix_core.latents.batches import batch_size_for, shard_size
from fusemix_core.latents.encoding import Encoding, ItemEncoder, can_accelerate
from fusemix_core.latents.filling import Filling, Progress, Target, unequal_lengths
from fusemix_core.latents.fleet import fill_by_processes, processes_for
from fusemix_core.latents.holding import Held
from fusemix_core.latents.sharing import settle
from fusemix_core.latents.store import LatentStore
from fusemix_core.latents.tables import RaggedLatents, StoredLatents
from fusemix_core.specs import EncoderSpec

if TYPE_CHECKING:
    from fusemix_core.data.items import Items


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
        encoder: used in place of the spec's.

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
            target = Target(store, known, view, how.store_dtype, ragged, most)
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
    return Extraction(table, known, bad, encoded, cached, warnings, digest, held.compute_dtype)


def none_read(spec: EncoderSpec, bad: Mapping[int, str]) -> DataError:
    """The error of a data set whose items are all `bad`: index → why."""
    return DataError(
        f"None of the {len(bad)} {spec.modality} items could be read.",
        f"The first: {next(iter(bad.values()), 'there are no items')}",
    )


def _fill(
    target: Target,
    missing: np.ndarray,
    items: Items,
    held: Held,
    how: Encoding,
    progress: Progress | None,
) -> tuple[dict[int, str], list[str]]:
    """Encode and store the missing items; (bad items, warnings).

    A function of its own so that nothing contains the encoder when `held` is freed.
    """
    if processes_for(held, items):
        can_accelerate(held.devices, how)  # refuses what was asked for and can't be
        held.free()
        return fill_by_processes(target, missing, items, held, how, progress or _unheard)
    batch = batch_size_for(held.spec, how.batch_size, held.devices[0])
    encoders = held.get(math.ceil(len(missing) / batch.items))
    with ItemEncoder(
        items,
        target.view,
        encoders,
        held.devices,
        batch,
        spec=held.spec,
        workers=how.workers,
        processes=how.processes,
    ) as encoder:
        warnings = _accelerate(encoder, target, missing, held, how)
        filling = Filling(encoder, target, items, progress or _unheard)
        filling.run(missing.tolist(), len(missing))
        return encoder.bad, [*warnings, *filling.tally().warnings(held.spec)]


def _unheard(done: int, total: int) -> None:
    """Progress that nobody asked for."""


def _accelerate(
    encoder: ItemEncoder, target: Target, missing: np.ndarray, held: Held, how: Encoding
) -> list[str]:
    """Put a faster runtime under the encoder if that pays; what the user should know."""
    if not can_accelerate(held.devices, how):
        return []
    home = target.store.home
    work = Work(target.view, target.fingerprint, home, len(missing))
    warning = encoder.accelerate(missing[:PROBE_ITEMS].tolist(), work, how.backend)
    return [warning] if warning else []
