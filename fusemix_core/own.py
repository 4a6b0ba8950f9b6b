"""Which rows of a batch one of several processes has the latents of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fusemix_core.errors import ContractError
from fusemix_core.gathering import part_of


@dataclass(frozen=True)
class Own:
    """The rows of a batch that one process needs for its share of the mixed rows.

    Args:
        rows: int64 CPU `[l]`, ascending.
        number: of this process.
        processes: how many share the batch.
        longest: how many positions items of tokens are padded to in the whole batch, by modality.

    Example:
        own = Own.of([torch.arange(0, 8), torch.arange(8, 16)], number=1, processes=2)
        own.rows  # 4 to 7 and 12 to 15
    """

    rows: Tensor
    number: int
    processes: int
    longest: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Sequence[Tensor], number: int, processes: int) -> Own:
        """What process `number` needs.

        Args:
            sources: for each source of a mixed row, the rows of the batch, int64 CPU `[m]`; see
                `Mixup.sources`.
        """
        share = part_of(len(sources[0]), number, processes)
        return cls(torch.cat([rows[share] for rows in sources]).unique(), number, processes)

    def share(self, count: int) -> slice:
        """This process's share of `count` mixed rows."""
        return part_of(count, self.number, self.processes)

    def mixed(self, count: int) -> Own:
        """The same of the batch of `count` rows that was mixed."""
        share = self.share(count)
        return replace(self, rows=torch.arange(share.start, share.stop))

    def places(self, rows: Tensor) -> Tensor:
        """Where rows of the batch are among `rows`, int64 on their device.

        Raises `ContractError` for a row whose latents this process has not.
        """
        own = self.rows.to(rows.device)
        places = torch.searchsorted(own, rows)
        if len(rows) and not (len(own) and torch.equal(own[places.clamp(max=len(own) - 1)], rows)):
            raise ContractError(
                "The mixup",
                "rows in `mixed` that its method `sources` says",
                "other rows, whose latents this process has not read",
            )
        return places

    def within(self, rows: slice) -> slice:
        """Where neighbouring rows of the batch are among `rows`; see `places`."""
        wanted = torch.arange(rows.start, rows.stop)
        first = int(self.places(wanted)[0]) if len(wanted) else 0
        return slice(first, first + len(wanted))
