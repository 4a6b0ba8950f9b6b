"""The latents of one view go to the latent store, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fusemix_core.config import StoreDtype
from fusemix_core.errors import ConfigError
from fusemix_core.latents.batches import GROUP, group_size
from fusemix_core.latents.encoding import ItemEncoder
from fusemix_core.latents.returned import Latents
from fusemix_core.latents.store import LatentStore
from fusemix_core.specs import EncoderSpec, kind_of

Progress = Callable[[int, int], None]

SHARD_BYTES = 256 << 20
"""float32 bytes at which a shard is complete, however few its items: what 16,384 pooled items take.
Where shards may have more items (`shard_size`), up to 8 times as much. A grid of one picture can
take as much as 500 pooled latents."""

_WIDENED = {
    "range": "hold values that float16 can't",
    "order": "would lose the order of near neighbours as float16",
}


@dataclass(frozen=True)
class Target:
    """Where latents go: one view of one encoder in the store, `most` items a shard. Not
    `ragged`: of one shape only."""

    store: LatentStore
    fingerprint: str
    view: str
    dtype: StoreDtype
    ragged: bool
    most: int


class Keyed(Protocol):
    """Whose `keys`, uint64 `[n, 2]`, items are stored by."""

    @property
    def keys(self) -> np.ndarray: ...


@dataclass
class Tally:
    """The outcome of a run: items that were encoded, shards by their fault, items that
    were cut, what media say of items, sentences of the encoder."""

    done: int = 0
    shards: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count in another run."""
        self.done += other.done
        self.shards += other.shards
        self.cut += other.cut
        self.notes += other.notes
        self.said += [sentence for sentence in other.said if sentence not in self.said]

    def warnings(self, spec: EncoderSpec) -> list[str]:
        """Notes for the user, a sentence each."""
        warnings = [
            f"{self.shards[fault]} of {self.shards['all']} shards of {spec.name} {why}: "
            "stored as float32."
            for fault, why in _WIDENED.items()
            if self.shards[fault]
        ]
        if self.cut:
            limit = f"{spec.max_tokens} tokens" if spec.max_tokens else "the encoder takes"
            warnings.append(
                f"{self.cut} of {self.done} {spec.modality} items are longer than {limit} and were "
                f"cut by {spec.name}."
            )
        warnings += [
            f"{count:,} of {self.done:,} {spec.modality} items {note}."
            for note, count in self.notes.items()
        ]
        return [*warnings, *self.said]


class Filling:
    """Stores what is encoded for one view of the store, shard by shard.

    Args:
        encoder: what encodes.
        target: where latents go.
        items: those that it encodes.
        progress: called with how many are done, and how many there are.
    """

    def __init__(
        self, encoder: ItemEncoder, target: Target, items: Keyed, progress: Progress
    ) -> None:
        self.encoder, self.target, self.items = encoder, target, items
        self.spec, self.progress = encoder.spec, progress
        self.done = self.stored = self.total = 0
        self.shards: Counter[str] = Counter()

    def run(self, wanted: Iterable[int], total: int) -> None:
        """Encode the items `wanted` and store them; `total` is how many they are.

        A shard is as many whole groups as reach the target's `most` items or its bytes. No
        batch crosses a group, and a group depends on nothing before it: so what follows a shard is
        the same whether or not the run was stopped in between. A `KeyboardInterrupt` gets a note
        with the number of encoded items that are lost: those of the shard that isn't complete.
        """
        self.total = total
        self.progress(0, self.total)
        try:
            self._run(wanted)
        except KeyboardInterrupt as stop:
            if lost := self.done - self.stored:
                stop.add_note(
                    f"{lost:,} {self.spec.modality} items that {self.spec.name} encoded are not "
                    f"kept: a part of up to {self.target.most:,} is stored when it is complete."
                )
            raise
        self.progress(self.total, self.total)

    def _run(self, wanted: Iterable[int]) -> None:
        """`run`, without progress at its ends."""
        most = self.target.most
        full = SHARD_BYTES * min(max(most // GROUP, 1), 8)
        size = group_size(self.spec, self.target.view, self.encoder.batch.items, most)
        current, groups, held, rows = 0, 1, 0, []
        # One thread writes a shard while the next is encoded; leaving waits for it.
        with ThreadPoolExecutor(1, "fusemix-write") as writer:
            written = writer.submit(self._store, [])
            for batch in self.encoder.encoded(wanted, size, self.total):
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

    def tally(self) -> Tally:
        """The outcome."""
        encoder = self.encoder
        return Tally(
            self.done, self.shards, encoder.cut, Counter(encoder.notes), encoder.warnings()
        )

    def _count(self, items: int) -> None:
        self.done += items
        self.progress(min(self.done + len(self.encoder.bad), self.total), self.total)

    def _store(self, rows: list[tuple[list[int], Latents]]) -> None:
        """Write what was encoded as one shard, in the order of the items; `rows` is emptied."""
        if not rows:
            return
        index = np.concatenate([np.asarray(i, np.int64) for i, _ in rows])
        order = np.argsort(index)
        values, lengths = _in_order(rows, order)
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
        self.stored += len(index)


def _in_order(
    rows: list[tuple[list[int], Latents]], order: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """(the latents `order` of all rows, and their lengths). `rows` is emptied meanwhile, so that
    about one copy is in memory."""
    first = rows[0][1]
    counts = np.ones(len(order), np.int64)
    if first.lengths is not None:
        lengths = [latents.lengths for _, latents in rows if latents.lengths is not None]
        counts = np.concatenate(lengths)
    begin = np.empty(len(order), np.int64)
    begin[order] = np.cumsum(counts[order]) - counts[order]
    values = np.empty((int(counts.sum()), *first.values.shape[1:]), first.values.dtype)
    at = 0
    while rows:
        index, latents = rows.pop(0)
        here = slice(at, at + len(index))
        inside = np.arange(len(latents.values)) - np.repeat(
            np.cumsum(counts[here]) - counts[here], counts[here]
        )
        values[np.repeat(begin[here], counts[here]) + inside] = latents.values
        at += len(index)
    return values, None if first.lengths is None else counts[order]


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
