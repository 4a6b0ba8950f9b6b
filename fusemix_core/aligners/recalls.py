"""The score that weights are chosen by: recall on the validation split."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from fusemix_core.adapters.rows import embed_rows
from fusemix_core.interfaces import PairedLatents

VALIDATION_ROWS = 10_000
"""Rows of the validation split that choose the weights; more would cost time and tell little."""

KS = (1, 5, 10)

Recalls = dict[tuple[str, str], tuple[float, ...]]


def mean_recall(found: Recalls) -> float | None:
    """The mean over directions and `KS`, in [0, 1]; None where there is nothing to tell apart.

    Of a small split R@1 alone is too coarse to choose by.
    """
    values = [value for shares in found.values() for value in shares]
    return sum(values) / len(values) if values else None


@torch.no_grad()
def recalls(
    adapters: Mapping[str, nn.Module],
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
    adapters: Mapping[str, nn.Module], latents: PairedLatents, device: torch.device | str = "cpu"
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
    found = {}
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
        x, y = _rows(linked[a], unit[a], ids_a), _rows(linked[b], unit[b], ids_b)
        found[a, b] = _shares_right(x, y, of_a, of_b, chunk)
        found[b, a] = _shares_right(y, x, of_b, of_a, chunk)
    return found


def _rows(ids: Tensor, embeddings: Tensor, wanted: Tensor) -> Tensor:
    """The embeddings of `wanted`, which are among the sorted `ids`."""
    return embeddings[torch.searchsorted(ids, wanted).to(embeddings.device)]


def _shares_right(
    x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, chunk: int
) -> tuple[float, ...]:
    """For each k of `KS` the share of rows of x with a linked row of y among the k nearest:
    (of_x[i], of_y[i]) are the links."""
    most = min(max(KS), len(y))
    nearest = torch.cat([(part @ y.T).topk(most, dim=1).indices for part in x.split(chunk)]).cpu()
    found = torch.arange(len(x))[:, None] * len(y) + nearest
    right = torch.isin(found, of_x * len(y) + of_y)
    return tuple(right[:, :k].any(1).double().mean().item() for k in KS)
