"""The score that weights are chosen by: recall on the validation split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from fusemix_core.adapters.rows import embed_rows
from fusemix_core.batch import sent
from fusemix_core.interfaces import Adapter, PairedLatents
from fusemix_core.numerics import exact

VALIDATION_ROWS = 10_000
"""Rows of the validation split that choose the weights; more would cost time and tell little."""

KS = (1, 5, 10)

Recalls = dict[tuple[str, str], tuple[float, ...]]

Hits = dict[tuple[str, str], Tensor]
"""By direction bool `[queries, len(KS)]`: which queries have a partner among the nearest k."""


def mean_recall(found: Recalls) -> float | None:
    """The mean over directions and `KS`, in [0, 1]; None if there is nothing to distinguish.

    Of a small split R@1 by itself is too coarse to choose by.
    """
    values = [value for shares in found.values() for value in shares]
    return sum(values) / len(values) if values else None


@torch.no_grad()
def recalls(
    adapters: Mapping[str, Adapter],
    latents: PairedLatents,
    device: torch.device | str = "cpu",
    chunk: int = 2048,
    fixed: Collection[str] = (),
) -> Recalls:
    """(query modality, target modality) → share of queries with a linked target among the nearest
    k, for each k of `KS`.

    Queries and targets are the unique items of the links that have both modalities; nearness is the
    cosine of the embeddings, and any of several linked targets counts. Pairs of modalities with
    fewer than two items on a side are left out, and so are those of two `fixed` modalities, of
    which a fit changes nothing. The adapters are used in eval mode.
    """
    training = {m: a.training for m, a in adapters.items()}
    for adapter in adapters.values():
        adapter.eval()
    unit = embedded(adapters, latents, device)
    for modality, adapter in adapters.items():
        adapter.train(training[modality])
    return recalls_of(unit, latents, chunk, fixed)


def embedded(
    adapters: Mapping[str, Adapter], latents: PairedLatents, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Modality → unit-norm embeddings of its linked items, in the order of their ids."""
    return {
        m: embed_rows(adapters[m], latents.tables[m], latents.linked(m), device)
        for m in latents.modalities
    }


def recalls_of(
    unit: Mapping[str, Tensor],
    latents: PairedLatents,
    chunk: int = 2048,
    fixed: Collection[str] = (),
) -> Recalls:
    """The same as `recalls` of embeddings as `embedded` makes them."""
    return recalls_in(hits_of(unit, latents, chunk, fixed))


def recalls_in(hits: Hits) -> Recalls:
    """The shares of the queries."""
    return {pair: tuple(own.double().mean(0).tolist()) for pair, own in hits.items()}


@exact()
def hits_of(
    unit: Mapping[str, Tensor],
    latents: PairedLatents,
    chunk: int = 2048,
    fixed: Collection[str] = (),
) -> Hits:
    """Of which queries `recalls` takes the share: by (query modality, target modality)."""
    found = {}
    for of in directions(latents, fixed):
        x, y = of.rows(unit)
        near = torch.cat([(part @ y.T).topk(of.most, dim=1).indices for part in x.split(chunk)])
        found[of.query, of.target] = of.hits(near)
    return found


@dataclass(frozen=True)
class Direction:
    """Queries of one modality among targets of another.

    queries, targets: their places among the linked items of their modalities, int64 `[n]` and
    `[t]`; of_queries, of_targets: the links, int64 `[m]` into these.
    """

    query: str
    target: str
    queries: Tensor
    targets: Tensor
    of_queries: Tensor
    of_targets: Tensor

    @property
    def most(self) -> int:
        """How many nearest targets matter."""
        return min(max(KS), len(self.targets))

    def rows(self, unit: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The embeddings of queries and targets."""
        x, y = unit[self.query], unit[self.target]
        return _taken(x, self.queries), _taken(y, self.targets)

    def hits(self, nearest: Tensor) -> Tensor:
        """bool `[n, len(KS)]`: whether a query has a linked target among the k nearest, int64
        `[n, most]`."""
        count = len(self.targets)
        found = torch.arange(len(nearest))[:, None] * count + nearest.cpu()
        right = torch.isin(found, self.of_queries * count + self.of_targets)
        return torch.stack([right[:, :k].any(1) for k in KS], dim=1)


def _taken(unit: Tensor, places: Tensor) -> Tensor:
    """Rows of embeddings; `places` are sorted and differ."""
    return unit if len(places) == len(unit) else unit[sent(places, unit.device)]


def directions(latents: PairedLatents, fixed: Collection[str] = ()) -> Iterator[Direction]:
    """Those that `recalls` measures."""
    linked = {m: latents.linked(m) for m in latents.modalities}
    for (i, a), (j, b) in combinations(enumerate(latents.modalities), 2):
        if a in fixed and b in fixed:
            continue
        links = latents.links[:, [i, j]]
        links = links[(links >= 0).all(1)]
        ids_a, of_a = links[:, 0].unique(return_inverse=True)
        ids_b, of_b = links[:, 1].unique(return_inverse=True)
        if min(len(ids_a), len(ids_b)) < 2:
            continue
        rows_a, rows_b = torch.searchsorted(linked[a], ids_a), torch.searchsorted(linked[b], ids_b)
        yield Direction(a, b, rows_a, rows_b, of_a, of_b)
        yield Direction(b, a, rows_b, rows_a, of_b, of_a)


def gain(hits: Hits, over: Hits) -> tuple[float, float]:
    """By how much the mean recall of `hits` is above that of `over`, and its standard error.

    Queries are compared one by one. The directions share their items, so their errors are taken to
    go together: the error of the mean is the mean of their errors.
    """
    differences = [
        (own.double() - over[pair].double()).mean(1) for pair, own in hits.items() if pair in over
    ]
    if not differences:
        return 0.0, 0.0
    errors = [(d.std(correction=0) / len(d) ** 0.5).item() for d in differences]
    means = [d.mean().item() for d in differences]
    return sum(means) / len(means), sum(errors) / len(errors)
