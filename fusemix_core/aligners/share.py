"""One pass over pairs that several processes make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch.distributed as dist
from torch import Tensor

from fusemix_core.engine.feed import Blocks
from fusemix_core.gathering import Rows, processes, rank
from fusemix_core.interfaces import PairedLatents


@dataclass(frozen=True)
class Share:
    """This process's rows of a pass, which is cut where that of one process is.

    pairs: its rows, in about the order that they have on disk. ends: where the rows of each process
    end among all.
    """

    pairs: PairedLatents
    ends: tuple[int, ...]

    @classmethod
    def of(cls, pairs: PairedLatents, size: int) -> Share:
        """The share of a pass by `size` rows at a time: a whole number of these."""
        if processes() == 1:
            return cls(pairs, (len(pairs),))
        order = Blocks.of(pairs, size).rows
        chunks = Rows.split(-(-len(pairs) // size)).sizes
        ends = (0, *(min(size * count, len(pairs)) for count in accumulate(chunks)))
        own = order[ends[rank()] : ends[rank() + 1]]
        return cls(replace(pairs, links=pairs.links[own], facts={}), ends[1:])

    @property
    def start(self) -> int:
        """The number of this process's first row."""
        return self.ends[rank() - 1] if rank() else 0

    @property
    def first(self) -> int:
        """The process that has row 0."""
        return next((number for number, end in enumerate(self.ends) if end), 0)

    def from_first(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The values of the process that has row 0, in every process. Collective."""
        values = [value.contiguous() for value in values]
        if processes() > 1:
            for value in values:
                dist.broadcast(value, self.first)
        return values

    def exchange(self, rows: Tensor) -> None:
        """Fill `[all rows, …]`, of which each process has its own. Collective."""
        for number, (start, end) in enumerate(pairwise((0, *self.ends))):
            if end > start and processes() > 1:
                dist.broadcast(rows[start:end], number)

    def so_far(self, done: int) -> int:
        """About how many of all rows are done when this process has done so many."""
        return (
            min(done * len(self.ends), self.ends[-1]) if done < len(self.pairs) else self.ends[-1]
        )
