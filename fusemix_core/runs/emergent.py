"""Pairs of modalities that were never paired in training: what a shared space gives unasked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

import torch
from torch import Tensor

from fusemix_core.interfaces import PairedLatents

MOST_LINKS = 1_000_000
"""Links through one modality beyond which it is left out: classes of thousands of items each."""

Pair = tuple[str, str]


def never_paired(train: PairedLatents, of: Collection[str]) -> list[Pair]:
    """The pairs of modalities, one or both of `of`, that no row links."""
    return [
        (a, b)
        for a, b in combinations(train.modalities, 2)
        if (a in of or b in of) and not len(links_of(train, a, b))
    ]


def with_indirect(pairs: PairedLatents, wanted: Sequence[Pair]) -> PairedLatents:
    """`pairs` and, for each wanted pair of modalities that no row of it links, rows that link its
    items through an item of a third: a picture and a sound that have one text."""
    added: list[Tensor] = []
    for a, b in wanted:
        if len(links_of(pairs, a, b)):
            continue
        through = [
            joined(links_of(pairs, a, third), links_of(pairs, third, b))
            for third in pairs.modalities
            if third not in (a, b)
        ]
        found = torch.cat(through).unique(dim=0)
        rows = torch.full((len(found), len(pairs.modalities)), -1)
        rows[:, [pairs.modalities.index(a), pairs.modalities.index(b)]] = found
        added.append(rows)
    count = sum(map(len, added))
    facts = {name: fact.with_missing(count) for name, fact in pairs.facts.items()}
    return PairedLatents(pairs.tables, torch.cat([pairs.links, *added]), facts)


def links_of(pairs: PairedLatents, a: str, b: str) -> Tensor:
    """The distinct links of two modalities, int64 `[n, 2]`."""
    links = pairs.links[:, [pairs.modalities.index(a), pairs.modalities.index(b)]]
    return links[(links >= 0).all(1)].unique(dim=0)


def joined(first: Tensor, second: Tensor) -> Tensor:
    """(a, b) for each (a, t) of `first` and (t, b) of `second`; none if that is too many."""
    second = second[second[:, 0].argsort(stable=True)]
    start = torch.searchsorted(second[:, 0].contiguous(), first[:, 1].contiguous())
    end = torch.searchsorted(second[:, 0].contiguous(), first[:, 1].contiguous(), right=True)
    counts = end - start
    total = int(counts.sum())
    if not 0 < total <= MOST_LINKS:
        return first[:0]
    offset = torch.arange(total) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.stack(
        [
            first[:, 0].repeat_interleave(counts),
            second[start.repeat_interleave(counts) + offset, 1],
        ],
        dim=1,
    )
