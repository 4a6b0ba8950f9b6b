"""Latents of paired data: tables of items, the links between them, batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from fusemix_core.data.facts import TRUST, Fact


@dataclass(frozen=True)
class Padded:
    """Latents of a view whose items differ in length: `values` float `[n, T, d]`, `mask` bool
    `[n, T]`, True where there is a latent; an item's latents come first, the rest is padding."""

    values: Tensor
    mask: Tensor

    def rows(self) -> Tensor:
        """`[n, T * d]`, the padding zero: as an adapter that takes tokens has them."""
        return self.values.masked_fill(~self.mask[..., None], 0).flatten(1)


@dataclass
class Batch:
    """One training batch.

    latents: modality → float `[n, d_m]`; rows whose entry is missing are zero.
    links: int64 `[n, S, K]`, the ids of the S items each row was mixed from (S=1 before mixup)
    in each of the K modalities (in the order of `latents`), -1 where missing.
    facts: name → `[n, S, …]`, the value of each of the S sources, as in `Fact`.
    unpaired: modality → float `[u_m, d_m]`, latents of items that no row links; a mixup leaves
    them as they are.
    """

    latents: dict[str, Tensor]
    links: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)
    unpaired: dict[str, Tensor] = field(default_factory=dict)

    def present(self) -> Tensor:
        """bool `[n, K]`: whether the row has an embedding in the modality (all S sources do)."""
        return (self.links >= 0).all(dim=1)

    def trust(self) -> Tensor:
        """float `[n]`, from 0 to 1: the least trust of a row's sources; 1 without that fact."""
        if TRUST not in self.facts:
            return torch.ones(len(self.links), device=self.links.device)
        return self.facts[TRUST].nan_to_num(1.0).amin(dim=1)

    def mixed(self, latents: dict[str, Tensor], *rows: Tensor) -> Batch:
        """The batch of rows that a mixup makes of this one's.

        Args:
            latents: modality → the mixed latents `[k, d_m]`.
            rows: for each source of a mixed row, the rows of this batch, int64 `[k]`.

        Returns:
            A batch with the links and facts of all sources.

        Example:
            `batch.mixed({m: (x[a] + x[b]) / 2 for m, x in batch.latents.items()}, a, b)`
        """
        links = torch.cat([self.links[own] for own in rows], dim=1)
        facts = {f: torch.cat([x[own] for own in rows], dim=1) for f, x in self.facts.items()}
        return replace(self, latents=latents, links=links, facts=facts)


class LatentTable(Protocol):
    """Latents of one modality's unique items, resident or on disk, as adapters take them.

    A view whose latents have more axes (`layers [n, L, d]`, `grid [n, H, W, d]`) comes as one row
    an item, `[n, L * d]`; where items differ in length, zeros follow an item's own latents. See
    `Adapter.takes_tokens`.
    """

    @property
    def dim(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item's latents before they are made one row; its product is `dim`."""
        ...

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> Tensor:
        """float32 `[len(index), dim]` for the int64 CPU tensor `index`, on the table's device."""
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

    def rows(self, index: Tensor) -> Tensor:
        rows = self.latents.index_select(0, index.to(self.latents.device)).flatten(1)
        return rows if rows.dtype == torch.float64 else rows.float()

    def to(self, device: torch.device) -> ResidentLatents:
        """The same table on a device."""
        return ResidentLatents(self.latents.to(device))


@dataclass
class PairedLatents:
    """Latents of a paired dataset.

    tables: modality → latents of its unique items. links: int64 CPU `[m, K]`, in the order of
    `tables`, -1 where a modality is missing; each row links two items or more. facts: name →
    further values of the rows, such as `trust`. unpaired: modality → int64 CPU `[u]`, further items
    to train on, which no row of any split links.
    """

    tables: dict[str, LatentTable]
    links: Tensor
    facts: dict[str, Fact] = field(default_factory=dict)
    unpaired: dict[str, Tensor] = field(default_factory=dict)

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
        """These modalities alone, in this order; a row may then link fewer than two items."""
        columns = [self.modalities.index(m) for m in modalities]
        tables = {m: self.tables[m] for m in modalities}
        unpaired = {m: ids for m, ids in self.unpaired.items() if m in modalities}
        return PairedLatents(tables, self.links[:, columns], self.facts, unpaired)

    def linked(self, modality: str) -> Tensor:
        """Sorted unique ids (int64) of the modality's items that occur in the links."""
        ids = self.links[:, self.modalities.index(modality)]
        return ids[ids >= 0].unique()

    def batch(self, rows: Tensor, device: torch.device | str = "cpu") -> Batch:
        """The rows of the links as a batch on `device`, zeros where an entry is missing."""
        links = self.links[rows]
        latents = {}
        for k, modality in enumerate(self.tables):
            values = self.latents_of(modality, links[:, k].clamp(min=0), device)
            absent = (links[:, k] < 0).to(device)
            latents[modality] = values.masked_fill(absent[:, None], 0) if absent.any() else values
        facts = {
            name: _to(torch.from_numpy(fact.values)[rows, None], torch.device(device))
            for name, fact in self.facts.items()
        }
        return Batch(latents, links[:, None, :].to(device), facts)

    def latents_of(self, modality: str, ids: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Latents `[len(ids), d_m]` of a modality's items on `device`."""
        return _to(self.tables[modality].rows(ids), torch.device(device))


def _to(values: Tensor, device: torch.device) -> Tensor:
    """`values` on the device; to a GPU by way of pinned memory, without waiting for the copy."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
