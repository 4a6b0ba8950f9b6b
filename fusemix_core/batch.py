"""A training batch, and how a mixup makes another one of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import Tensor

from fusemix_core.copied import Copied
from fusemix_core.data.facts import TRUST
from fusemix_core.devices import widest_float
from fusemix_core.own import Own
from fusemix_core.padded import Padded


@dataclass
class Batch:
    """One training batch.

    latents: modality → float `[n, d_m]`; rows whose entry is missing are zero. Of a modality whose
    adapter takes tokens they are `Padded` `[n, T, d_m]`; a missing entry has none.
    links: int64 `[n, S, K]`, the ids of the S items each row was mixed from (S=1 before mixup)
    in each of the K modalities (in the order of `latents`), -1 where missing.
    facts: name → `[n, S, …]`, the value of each of the S sources, as in `Fact`.
    unpaired: modality → latents of u_m items that no row links, in the form of `latents`; a mixup
    leaves them as they are.
    copied: what `links_here` gives, if whoever made the links had them on the CPU.
    own: the rows that `latents` has, if several processes share the batch and each has read its own
    only. Links and facts are those of all rows.
    """

    latents: dict[str, Tensor | Padded]
    links: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)
    unpaired: dict[str, Tensor | Padded] = field(default_factory=dict)
    copied: Copied | None = None
    own: Own | None = None

    def present(self) -> Tensor:
        """bool `[n, K]`: whether the row has an embedding in the modality (all S sources do)."""
        return (self.links >= 0).all(dim=1)

    def links_here(self) -> Tensor:
        """The links on the CPU, for decisions that the device need not be asked about.

        Batches of a feed come with them, and `mixed` passes them on. Only links that were made on
        the device are copied from it, which waits for all its work.
        """
        if self.links.device.type == "cpu":
            return self.links
        if self.copied is None or not self.copied.is_of(self.links):
            self.copied = Copied.of(self.links, self.links.cpu())
        return self.copied.here

    def present_here(self) -> Tensor:
        """`present` on the CPU; see `links_here`."""
        return (self.links_here() >= 0).all(dim=1)

    def trust(self) -> Tensor:
        """float `[n]`, from 0 to 1: the least trust of a row's sources; 1 without that fact."""
        if TRUST not in self.facts:
            return torch.ones(len(self.links), device=self.links.device)
        return self.facts[TRUST].nan_to_num(1.0).amin(dim=1)

    def part(self, rows: slice, unpaired: Mapping[str, slice]) -> Batch:
        """Some of the rows, and of each modality's unpaired items."""
        here = rows if self.own is None else self.own.within(rows)
        links, copied = self.links[rows], None
        if self.copied is not None and self.copied.is_of(self.links):
            copied = Copied.of(links, self.copied.here[rows])
        return Batch(
            {m: x[here] for m, x in self.latents.items()},
            links,
            {name: x[rows] for name, x in self.facts.items()},
            {m: x[unpaired[m]] for m, x in self.unpaired.items()},
            copied,
        )

    def mixed(
        self, how: Callable[..., Tensor], *rows: Tensor, each: Sequence[Tensor] = ()
    ) -> Batch:
        """The batch of rows that a mixup makes of this one's.

        Args:
            how: called once a modality with the latents of each source, all `[k, d]`, then `each`;
                returns the mixed ones. Tokens come as one row per item, with zeros for padding; a
                mixed item has a token in every position where one of its sources has.
            rows: for each source of a mixed row, the rows of this batch, int64 `[m]`; best on the
                CPU (see `present_here`), whatever the device of the batch.
            each: values of each mixed row, `[m, …]`, such as a lambda of its own. Where a process
                mixes its own rows only, `how` gets those of its rows.

        Returns:
            A batch with the links and facts of all sources. A row has the modalities that all of
            its sources have.

        Example:
            `batch.mixed(lambda x, y: 0.3 * x + 0.7 * y, first, second)`
        """
        device, count, here = self.links.device, len(rows[0]), None
        share = slice(None) if self.own is None else self.own.share(count)
        read = rows
        if self.own is not None:
            read = tuple(self.own.places(own[share]) for own in rows)
        if all(own.device.type == "cpu" for own in rows):
            own_links = self.links_here()
            here = torch.cat([own_links[own] for own in rows], dim=1)
            rows, read = (tuple(sent(own, device) for own in of) for of in (rows, read))
        links = torch.cat([self.links[own] for own in rows], dim=1)
        facts = {f: torch.cat([x[own] for own in rows], dim=1) for f, x in self.facts.items()}
        mixed = replace(
            self,
            latents={},
            links=links,
            facts=facts,
            copied=None if here is None else Copied.of(links, here),
            own=self.own and self.own.mixed(count),
        )
        absent, each = ~mixed.present()[share], [values[share] for values in each]
        for k, (modality, x) in enumerate(self.latents.items()):
            if isinstance(x, Padded):
                given, mask = x.filled().flatten(1), torch.stack([x.mask[own] for own in read])
                values = how(*(given[own] for own in read), *each)
                y = Padded(values.unflatten(1, x.values.shape[1:]), mask.any(dim=0))
            else:
                y = how(*(x[own] for own in read), *each)
            mixed.latents[modality] = without(y, absent[:, k])
        return mixed

    def changed(self, how: Callable[[Tensor, Tensor], Tensor]) -> Batch:
        """The batch with its latents changed, each modality by itself.

        Args:
            how: called with latents `[n, d]` and bool `[n]`, which of them are there, or with
                tokens `[n, T, d]` and bool `[n, T]`; returns the changed latents. What it gives
                for missing entries and for padding is not used.

        Example:
            `batch.changed(lambda x, own: x + 0.1 * torch.randn_like(x))`
        """
        present, latents = self.present(), {}
        if self.own is not None:
            present = present[sent(self.own.rows, present.device)]
        for k, (modality, x) in enumerate(self.latents.items()):
            if isinstance(x, Padded):
                latents[modality] = Padded(Padded(how(x.values, x.mask), x.mask).filled(), x.mask)
            else:
                own = present[:, k]
                latents[modality] = without(how(x, own), ~own)
        return replace(self, latents=latents)


@overload
def without(latents: Tensor, rows: Tensor) -> Tensor: ...
@overload
def without(latents: Padded, rows: Tensor) -> Padded: ...
def without(latents: Tensor | Padded, rows: Tensor) -> Tensor | Padded:
    """Latents with nothing in the rows that bool `[n]` says."""
    if isinstance(latents, Padded):
        mask = latents.mask & ~rows[:, None]
        return Padded(latents.values.masked_fill(~mask[..., None], 0), mask)
    return latents.masked_fill(rows[:, None], 0)


@overload
def sent(x: Tensor, device: torch.device) -> Tensor: ...
@overload
def sent(x: Padded, device: torch.device) -> Padded: ...
def sent(x: Tensor | Padded, device: torch.device) -> Tensor | Padded:
    """The same on the device; to a GPU by way of pinned memory, without waiting for the copy. A
    device that has no float64 gets float32."""
    if isinstance(x, Padded):
        return Padded(sent(x.values, device), sent(x.mask, device))
    if x.dtype == torch.float64:
        x = x.to(widest_float(device))
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
