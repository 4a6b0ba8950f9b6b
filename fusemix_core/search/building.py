"""From a dataset to a collection: what is new is encoded, embedded, lifted and added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.dataset import SPLITS, PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.errors import DataError
from fusemix_core.fused import FusedModel
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.reporter import Reporter
from fusemix_core.search.lookup import Lookup
from fusemix_core.search.state import LEVELS
from fusemix_core.vectors import Index

_AT_ONCE = 65_536
"""Items whose embeddings are in memory at once."""
_SAMPLE = 1024
"""Queries, and items, whose scores say what a score is worth."""


def add_new(
    model: FusedModel, items: Items, index: Index, asks: Sequence[str], reporter: Reporter
) -> np.ndarray:
    """Add the vectors of items that the index lacks; bool `[n]`, which of all it has then.

    Items that can't be decoded are reported, and stay out. A process that is killed loses only the
    last few thousand items.
    """
    missing = np.flatnonzero(Lookup(index.keys).find(items.keys) < 0)
    for start in range(0, len(missing), _AT_ONCE):
        some = items.select(missing[start : start + _AT_ONCE])
        ids, embeddings = _embedded(model, some, reporter)
        if len(ids):
            rows = model.scorer.lift(embeddings, items.modality, asks, gallery=True)
            index.add(some.keys[ids.numpy()], rows.numpy())
    return Lookup(index.keys).find(items.keys) >= 0


def _embedded(model: FusedModel, items: Items, reporter: Reporter) -> tuple[Tensor, Tensor]:
    """(int64 the items that could be decoded; their embeddings, float32 `[m, d]`)."""
    links = np.arange(len(items))[:, None]
    none = np.zeros(0, np.int64)
    splits = dict.fromkeys(SPLITS, none)
    alone = {items.modality: items}
    dataset = PairedDataset(alone, links, splits, items.origin, rows_read=len(items), least=1)
    try:
        encoded = encode_for(model, dataset, reporter, max_bad=1.0)
    except DataError as error:  # not one of them can be decoded
        reporter.note(str(error))
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, model.dim)
    found = embed_for(model, encoded.paired())
    return found.ids[items.modality], found.embeddings[items.modality]


def random_scores(
    model: FusedModel, indexes: Mapping[str, Index], asks: Sequence[str]
) -> dict[str, list[float]]:
    """ "QUERY>TARGET" → scores of random queries with random items of the collection, at `LEVELS`.

    Queries are training embeddings that the scorer contains, else the collection's own items of
    that modality; a direction without either is left out.
    """
    banks = {m: rows for m in asks if (rows := _queries(model, indexes, m)) is not None}
    found = {}
    for target, index in indexes.items():
        if not len(index):
            continue
        gallery = _sample(index, model.dim)
        for query, queries in banks.items():
            scores = model.scorer.score(queries, gallery, query, target)
            if query == target:  # an item is no stranger to itself
                scores = scores[queries @ gallery.T < 1 - 1e-3]
            if scores.numel():
                levels = np.percentile(scores.numpy(), LEVELS)
                found[f"{query}>{target}"] = [round(float(value), 6) for value in levels]
    return found


def _queries(model: FusedModel, indexes: Mapping[str, Index], modality: str) -> Tensor | None:
    bank = model.scorer.tensors.get(f"bank.{modality}")
    if bank is not None and bank.dim() == 2 and bank.shape[1] == model.dim:
        return bank[_spread(len(bank))].float()
    index = indexes.get(modality)
    return _sample(index, model.dim) if index is not None and len(index) else None


def _sample(index: Index, dim: int) -> Tensor:
    """float32 `[n, dim]`: embeddings spread evenly over an index."""
    return torch.from_numpy(index.rows(index.keys[_spread(len(index))])[:, :dim].copy())


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).round().astype(np.int64))


def in_chunks(index: Index, dim: int) -> Iterator[np.ndarray]:
    """The embeddings of an index, float32 `[n, dim]` at a time."""
    for start in range(0, len(index), _AT_ONCE):
        yield index.rows(index.keys[start : start + _AT_ONCE])[:, :dim]


def plane(index: Index, dim: int) -> np.ndarray:
    """float32 `[n, 2]`: the vectors on their first two principal components."""
    if not len(index):
        return np.zeros((0, 2), np.float32)
    sample = _sample(index, dim).numpy()
    mean = sample.mean(axis=0)
    axes = np.linalg.svd(sample - mean, full_matrices=False)[2][:2]
    flat = np.concatenate([(rows - mean) @ axes.T for rows in in_chunks(index, dim)])
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))).astype(np.float32)
