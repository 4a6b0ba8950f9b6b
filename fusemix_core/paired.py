"""Latents of paired data: tables of items, the links between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from fusemix_core.batch import Batch, sent, without
from fusemix_core.copied import Copied
from fusemix_core.data.facts import Fact
from fusemix_core.own import Own
from fusemix_core.padded import Padded, as_rows, as_tokens


class LatentTable(Protocol):
    """Latents of one modality's unique items, resident or on disk, in the shape of their view."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item's latents: `(d,)`, `(L, d)`, `(H, W, d)`; `(T, d)` with the T of the
        longest item where items differ in length."""
        ...

    @property
    def dim(self) -> int:
        """The product of `shape`: the width of an item as one row; see `as_rows`."""
        ...

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> Tensor | Padded:
        """float32 `[m, *shape]` for the m items of the int64 CPU tensor `index`, on the table's
        device; `Padded` to the longest of these where items differ in length."""
        ...


class ResidentLatents:
    """A `LatentTable` held as one tensor `[n, *shape]` in memory or on a device."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.latents.shape[1:])

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, index: Tensor) -> Tensor | Padded:
        rows = self.latents.index_select(0, sent(index, self.latents.device))
        return rows if rows.dtype == torch.float64 else rows.float()

    def load(self, index: Tensor) -> ResidentLatents:
        """The items of the int64 CPU tensor `index` as a table, in the type they are held in."""
        return ResidentLatents(self.latents.index_select(0, sent(index, self.latents.device)))

    def holding(self, latents: Tensor) -> ResidentLatents:
        """The table of the same latents in another place or type."""
        return ResidentLatents(latents)

    def to(self, device: torch.device) -> ResidentLatents:
        """The same table on a device."""
        return self.holding(self.latents.to(device))


class ResidentTokens(ResidentLatents):
    """The table of items that differ in length, in memory or on a device, without padding.

    latents: those of all items one after another, `[sum of lengths, d]`; lengths: int64 `[n]` on
    the CPU, 0 where an item has none.
    """

    def __init__(self, latents: Tensor, lengths: Tensor) -> None:
        super().__init__(latents)
        self.lengths = lengths
        self._starts = lengths.cumsum(0) - lengths
        self._longest = longest(lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._longest, self.latents.shape[1])

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, index: Tensor) -> Padded:
        device, count = self.latents.device, self.lengths[index]
        mask = torch.arange(longest(count)) < count[:, None]
        source = sent(spread(self._starts[index], count), device)
        target = sent(mask.flatten().nonzero()[:, 0], device)
        own = self.latents.index_select(0, source)
        own = own if own.dtype == torch.float64 else own.float()
        values = own.new_zeros(mask.numel(), own.shape[1]).index_copy_(0, target, own)
        return Padded(values.view(*mask.shape, own.shape[1]), sent(mask, device))

    def load(self, index: Tensor) -> ResidentTokens:
        count = self.lengths[index]
        source = sent(spread(self._starts[index], count), self.latents.device)
        return ResidentTokens(self.latents.index_select(0, source), count)

    def holding(self, latents: Tensor) -> ResidentTokens:
        return ResidentTokens(latents, self.lengths)


def spread(starts: Tensor, counts: Tensor) -> Tensor:
    """int64: starts[0], starts[0] + 1, … (counts[0] of them), then those of starts[1], and on."""
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return starts.repeat_interleave(counts) + within


def longest(lengths: Tensor) -> int:
    """How many positions items of these lengths are padded to: 1 or more."""
    return max(int(lengths.max()), 1) if len(lengths) else 1


def in_memory(rows: Tensor | Padded) -> ResidentLatents:
    """A table in memory of what `LatentTable.rows` gave, without padding."""
    if isinstance(rows, Padded):
        return ResidentTokens(rows.values[rows.mask], rows.mask.sum(dim=1).cpu())
    return ResidentLatents(rows)


def load(table: LatentTable, ids: Tensor) -> ResidentLatents:
    """A table in memory of some items, in the type they are stored in if the table can give it."""
    own = getattr(table, "load", None)
    return own(ids) if own else in_memory(table.rows(ids))


def joined(tables: Sequence[ResidentLatents]) -> ResidentLatents:
    """The items of tables of one view, one after another."""
    latents = torch.cat([table.latents for table in tables])
    tokens = [table.lengths for table in tables if isinstance(table, ResidentTokens)]
    if tokens:
        return ResidentTokens(latents, torch.cat(tokens))
    return ResidentLatents(latents)


@dataclass
class PairedLatents:
    """Latents of a paired dataset.

    tables: modality → latents of its unique items. links: int64 CPU `[m, K]`, in the order of
    `tables`, -1 where a modality is missing; a row that an aligner is given links two or more.
    facts: name → further values of the rows, such as `trust`. unpaired: modality → int64 CPU `[u]`,
    further items to train on, which no row of any split links. tokens: the modalities whose latents
    batches contain as `Padded`; see `with_tokens`.
    """

    tables: Mapping[str, LatentTable]
    links: Tensor
    facts: dict[str, Fact] = field(default_factory=dict)
    unpaired: dict[str, Tensor] = field(default_factory=dict)
    tokens: frozenset[str] = frozenset()

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.tables)

    @property
    def dims(self) -> dict[str, int]:
        return {m: t.dim for m, t in self.tables.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The type batches come in: float32, or float64 where a table holds it."""
        row = self.batch(torch.tensor([0])).latents.values()
        return torch.float64 if any(x.dtype == torch.float64 for x in row) else torch.float32

    def __len__(self) -> int:
        return len(self.links)

    def select(self, rows: Tensor) -> PairedLatents:
        """The same tables with only these rows of the links."""
        facts = {name: fact.select(rows.numpy()) for name, fact in self.facts.items()}
        return replace(self, links=self.links[rows], facts=facts)

    def only(self, modalities: Sequence[str]) -> PairedLatents:
        """These modalities only, in this order; a row may then link fewer than two items."""
        columns = [self.modalities.index(m) for m in modalities]
        tables = {m: self.tables[m] for m in modalities}
        unpaired = {m: ids for m, ids in self.unpaired.items() if m in modalities}
        return replace(self, tables=tables, links=self.links[:, columns], unpaired=unpaired)

    def with_tokens(self, modalities: Iterable[str]) -> PairedLatents:
        """The same pairs, whose batches hold these modalities as `as_tokens` makes them.

        Without, every modality is one row per item, as `as_rows` makes it. Whoever wants the axes
        of a view reads the table itself: `pairs.tables[m].rows(ids)`.
        """
        return replace(self, tokens=frozenset(modalities))

    def linked(self, modality: str) -> Tensor:
        """Sorted unique ids (int64) of the modality's items that occur in the links."""
        ids = self.links[:, self.modalities.index(modality)]
        return ids[ids >= 0].unique()

    def batch(
        self,
        rows: Tensor,
        device: torch.device | str = "cpu",
        numbers: Tensor | None = None,
        own: Own | None = None,
    ) -> Batch:
        """The rows of the links as a batch on `device`: zeros, or no token, for a missing entry.

        numbers: int64 CPU `[n, K]`, the links that the batch gets, if its items have other numbers
        there than in these tables. own: those of the rows whose latents are read, if not all.
        """
        links = self.links[rows]
        read = links if own is None else links[own.rows]
        latents = {
            m: self._with_gaps(m, ids, torch.device(device))
            for m, ids in zip(self.tables, read.T, strict=True)
        }
        for modality, length in ({} if own is None else own.longest).items():
            latents[modality] = as_tokens(latents[modality]).padded_to(length)
        facts = {
            name: sent(torch.from_numpy(fact.values)[rows, None], torch.device(device))
            for name, fact in self.facts.items()
        }
        here = (links if numbers is None else numbers)[:, None, :]
        there = sent(here, torch.device(device))
        return Batch(latents, there, facts, copied=Copied.of(there, here), own=own)

    def longest_tokens(self, links: Tensor) -> dict[str, int]:
        """How many positions a batch of these links `[n, K]` has, by modality that is tokens."""
        found = {}
        for k, (modality, table) in enumerate(self.tables.items()):
            if modality in self.tokens:
                ids = links[links[:, k] >= 0, k]
                lengths = getattr(table, "lengths", None)
                every = math.prod(table.shape[:-1])  # of a table that does not say: enough for any
                found[modality] = every if lengths is None else longest(lengths[ids])
        return found

    def latents_of(
        self, modality: str, ids: Tensor, device: torch.device | str = "cpu"
    ) -> Tensor | Padded:
        """Latents `[len(ids), d_m]`, or tokens, of a modality's items on `device`, in the form that
        batches have."""
        table = self.tables[modality]
        found = as_tokens(table.rows(ids)) if modality in self.tokens else rows_of(table, ids)
        return sent(found, torch.device(device))

    def _with_gaps(self, modality: str, ids: Tensor, device: torch.device) -> Tensor | Padded:
        """`latents_of`, with nothing where an id is -1."""
        absent = ids < 0
        if not absent.any():
            return self.latents_of(modality, ids, device)
        if modality not in self.tokens:
            found = self.latents_of(modality, ids.clamp(min=0), device)
            return without(found, sent(absent, device))
        # Of these items only, so that T is theirs.
        own = as_tokens(self.latents_of(modality, ids[~absent], device))
        values = own.values.new_zeros(len(ids), *own.values.shape[1:])
        mask = own.mask.new_zeros(values.shape[:2])
        there = sent((~absent).nonzero()[:, 0], device)
        values[there], mask[there] = own.values, own.mask
        return Padded(values, mask)


def rows_of(table: LatentTable, ids: Tensor) -> Tensor:
    """float32 `[len(ids), table.dim]`: items of any view, one row each, as `as_rows` makes them."""
    return as_rows(table.rows(ids), table.dim)
