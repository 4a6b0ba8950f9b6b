"""A collection as the page needs it: its map, its columns, and searches of several queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.runs.candidates import Reranking
from fusemix_core.search import Collection, Found
from fusemix_core.search.found import caption_column
from fusemix_serve.snapshot import Snapshot, inside_polygon

MOST = 10_000
"""Results of one search that are looked at, at most."""
SAME = 0.985
"""The cosine from which two items are shown as one."""
_MINUS = 0.5
"""The weight of excluded items in a query, if that of the queries is 1 (Rocchio, 1971)."""


@dataclass(frozen=True)
class Question:
    """A search.

    Attributes:
        vector: unit norm, `[d]`; None browses.
        modality: that of the query.
        to: the modality to search in; None: all.
        where: a condition on the columns.
        within: the corners `[m, 2]` of a polygon on the map.
        exclude: keys that are not to be found.
        least: the percentile from which results are shown.
        fold: whether near-duplicates are shown as one.
        count, offset: which of the results.
        places: whether the places of all results on the map are asked for.
        item: the query itself, if results are to be ranked anew.
    """

    vector: Tensor | None = None
    modality: str = ""
    to: str | None = None
    where: str | None = None
    within: np.ndarray | None = None
    exclude: tuple[str, ...] = ()
    least: float | None = None
    fold: bool = False
    count: int = 10
    offset: int = 0
    places: bool = False
    item: Any = None


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        hits: the results that were asked for.
        total: how many there are in all.
        places: of all results on the map, near-duplicates too; None if they weren't asked for, or
            if all items are results: of a query without a cut-off, or of nothing at all.
    """

    hits: list[dict[str, Any]]
    total: int
    places: list[int] | None = None


class Gallery:
    """A collection at work behind a page. Its methods may block: call them in a thread.

    Args:
        name: what the page calls it.
        collection: that is searched.
        reranking: orders the first results of a search anew, if anything does.
    """

    def __init__(
        self, name: str, collection: Collection, reranking: Reranking | None = None
    ) -> None:
        self.name, self.collection, self.reranking = name, collection, reranking
        self.model = collection.model
        self._snapshot = Snapshot(collection)

    @property
    def now(self) -> Snapshot:
        """The present state: another process may have updated the collection."""
        if self._snapshot.version != self.collection.version:
            self._snapshot = Snapshot(self.collection)
        return self._snapshot

    # -- what there is ---------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """The collection, its modalities and columns."""
        own, asked = self.collection.modalities, self.collection.query_modalities
        return {
            "name": self.name,
            "count": len(self.collection),
            "modalities": [{"name": m, "takes": self.takes(m)} for m in own],
            "query": [{"name": m, "takes": self.takes(m)} for m in asked],
            "columns": self.now.columns,
            "scorer": self.model.scorer_name,
            "has_map": len(self.collection) > 0,
            "reranks": [] if self.reranking is None else self.reranking.directions,
        }

    def takes(self, modality: str) -> str:
        """The medium of a modality's items."""
        return self.model.encoders[modality].takes

    def facets(
        self, column: str, where: str | None = None, to: str | None = None
    ) -> list[dict[str, Any]]:
        """How many items, all or of one modality, have each value, the most frequent first."""
        found = self.collection.facets(column, where, to)
        return [{"value": value, "count": count} for value, count in found[:1000]]

    def records(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The records of keys, in their order; unknown keys are left out."""
        return [self._shown(one) for one in self._known(keys)]

    def modality_of(self, key: str) -> str | None:
        """The modality of an item; None if there is no such item."""
        return next((one.modality for one in self._known([key])), None)

    def _known(self, keys: Sequence[str]) -> list[Found]:
        try:
            return list(self.collection.items(keys))
        except KeyError:
            pass  # some are unknown
        found: list[Found] = []
        for key in keys:
            with suppress(KeyError):
                found += self.collection.items([key])
        return found

    # -- searching -------------------------------------------------------------------------------

    def combined(
        self, vectors: Tensor, weights: Sequence[float], minus: Sequence[str]
    ) -> Tensor | None:
        """One query of several: their weighted mean, less half the mean of the excluded items.

        Args:
            vectors: unit norm, `[n, d]`.
            weights: one of each.
            minus: keys of excluded items.

        Returns:
            unit norm, `[d]`; None if they cancel each other out.
        """
        query = torch.zeros(self.model.dim)
        if len(vectors):
            query = (vectors * torch.tensor(weights, dtype=torch.float32)[:, None]).sum(dim=0)
            query = query / max(sum(map(abs, weights)), 1e-9)
        if minus:
            query = query - _MINUS * self.collection.vectors(list(minus)).float().mean(dim=0)
        return normalize(query, dim=0) if float(query.norm()) > 1e-6 else None

    def search(self, question: Question) -> Answer:
        """The results of a search."""
        allowed = self._allowed(question)
        if question.vector is None:
            return self._browsed(question, allowed)
        end = question.offset + question.count
        wanted = end if question.least is None else max(end, 1000)
        marking = question.places and question.least is not None
        wanted = MOST if marking else wanted
        while True:
            found, complete = self._found(question, allowed, wanted)
            groups = self._folded(found) if question.fold else [(one, []) for one in found]
            if complete or len(groups) >= end or wanted >= MOST:
                break
            wanted = min(wanted * 4, MOST)
        total = len(groups)
        if not complete and question.least is None:
            passing = len(self.now.keys) if allowed is None else int(allowed.sum())
            total = max(total, passing - (len(found) - len(groups)))
        shown = groups[question.offset : question.offset + question.count]
        hits = [self._shown(one) | {"duplicates": same} for one, same in shown]
        self._explain(question, hits)
        places = [self.now.places[one.key] for one in found] if marking else None
        return Answer(hits, total, places)

    def _allowed(self, question: Question) -> np.ndarray | None:
        """bool `[n]`, in the order of the map: items that pass the filters; None: all do."""
        allowed = None
        if question.where:
            allowed = self.now.view.matching(question.where)
        if question.within is not None:
            inside = inside_polygon(self.now.points, question.within)
            allowed = inside if allowed is None else allowed & inside
        if question.to is not None and len(self.collection.modalities) > 1:
            own = self.now.modalities == question.to
            allowed = own if allowed is None else allowed & own
        return allowed

    def _browsed(self, question: Question, allowed: np.ndarray | None) -> Answer:
        """Items in the order of the collection."""
        places = np.arange(len(self.now.keys)) if allowed is None else np.flatnonzero(allowed)
        shown = places[question.offset : question.offset + question.count]
        records = self.records([self.now.keys[i] for i in shown.tolist()])
        hits = [one | {"score": None, "percentile": None, "why": None} for one in records]
        filtered = question.where is not None or question.within is not None
        marked = places[:MOST].tolist() if question.places and filtered else None
        return Answer([hit | {"duplicates": []} for hit in hits], len(places), marked)

    def _found(
        self, question: Question, allowed: np.ndarray | None, wanted: int
    ) -> tuple[list[Found], bool]:
        """(the best results that pass all filters, whether there are no more): as many as wanted
        or more, if there are so many."""
        least = -math.inf if question.least is None else question.least
        # The index knows nothing of the polygon: ask for more until enough are inside.
        inside = allowed if question.within is not None else None
        count = wanted if inside is None else 8 * wanted
        while True:
            found = self._best(question, count)
            kept = [
                one
                for one in found
                if (inside is None or inside[self.now.places[one.key]])
                and (one.percentile is None or one.percentile >= least)
            ]
            complete = len(found) < count or (inside is None and len(kept) < len(found))
            if complete or inside is None or len(kept) >= wanted:
                return kept, complete
            count *= 8

    def _best(self, question: Question, count: int) -> list[Found]:
        """The best `count` of each modality that is searched, or fewer. Scores of different
        modalities can't be compared: several are merged by percentile, and by rank."""
        assert question.vector is not None
        targets = [question.to] if question.to else list(self.collection.modalities)
        ranked: list[tuple[float, int, Found]] = []
        anew = self.reranking if question.item is not None and len(targets) == 1 else None
        for target in targets:
            found = self.collection.search(
                question.vector,
                question.modality,
                count=count if anew is None else anew.wanted(count),
                where=question.where,
                target=target,
                exclude=question.exclude,
            )
            if anew is not None:
                found = self.collection.reranked(found, question.modality, question.item, anew)
            ranked += [(-(one.percentile or 0.0), i, one) for i, one in enumerate(found)]
        if len(targets) > 1:
            ranked.sort(key=lambda one: one[:2])
        return [one for *_, one in ranked[:count]]

    def _folded(self, found: Sequence[Found]) -> list[tuple[Found, list[str]]]:
        """Results with the keys of the near-duplicates that are folded into each."""
        if not found:
            return []
        rows = normalize(self.collection.vectors([one.key for one in found]).float(), dim=1)
        groups: list[tuple[Found, list[str]]] = []
        kept: list[int] = []
        for i, one in enumerate(found):
            near = (rows[kept] @ rows[i] >= SAME).nonzero()[:, 0].tolist()
            same = [j for j in near if groups[j][0].modality == one.modality]
            if same:
                groups[same[0]][1].append(one.key)
            else:
                kept.append(i)
                groups.append((one, []))
        return groups

    # -- showing ---------------------------------------------------------------------------------

    def _shown(self, one: Found) -> dict[str, Any]:
        """An item as the page gets it: no path of it, only its name."""
        medium = self.takes(one.modality)
        inline = medium not in ("image", "audio", "file") and _is_inline(medium)
        text = one.item if inline else self._caption(one)
        return {
            "key": one.key,
            "modality": one.modality,
            "score": one.score,
            "percentile": one.percentile,
            "item": one.item[:200] if inline else PurePath(one.item.replace("\\", "/")).name,
            "text": text,
            "columns": dict(one.columns),
            "thumb": f"/thumb/{one.key}" if medium == "image" else None,
            "media": None if inline else f"/media/{one.key}",
            "at": self.now.places.get(one.key),
        }

    def _caption(self, one: Found) -> str | None:
        """The value of a column that usually has captions."""
        column = self._captions
        value = None if column is None else one.columns.get(column)
        return value if isinstance(value, str) else None

    @cached_property
    def _captions(self) -> str | None:
        return caption_column(self.collection.columns)

    def _explain(self, question: Question, hits: list[dict[str, Any]]) -> None:
        """Add why each was found: its cosine, what was subtracted for being near to everything,
        and the dimensions that gave most of it."""
        assert question.vector is not None
        if not hits:
            return
        rows = normalize(self.collection.vectors([hit["key"] for hit in hits]).float(), dim=1)
        products = rows * question.vector
        taken = self._hubness(question, hits, rows)
        for hit, row, hubness in zip(hits, products, taken, strict=True):
            positive = row.clamp(min=0)
            best = positive.topk(min(3, len(row)))
            shares = (best.values / positive.sum().clamp(min=1e-9)).tolist()
            dims = zip(best.indices.tolist(), shares, strict=True)
            hit["why"] = {
                "cosine": float(row.sum()),
                "hubness": hubness,
                "dims": [{"dim": dim, "share": share} for dim, share in dims],
            }

    def _hubness(
        self, question: Question, hits: list[dict[str, Any]], rows: Tensor
    ) -> list[float | None]:
        """How much the scorer subtracts from twice the cosine of each hit for being near to many
        queries; None if it subtracts nothing."""
        found: list[float | None] = [None] * len(hits)
        for modality in {hit["modality"] for hit in hits}:
            index = [i for i, hit in enumerate(hits) if hit["modality"] == modality]
            lifted = self.model.scorer.lift(rows[index], modality, [question.modality], True)
            if lifted.shape[1] == rows.shape[1] + 1:
                for i, value in zip(index, (-2 * lifted[:, -1]).tolist(), strict=True):
                    found[i] = value
        return found


def _is_inline(medium: str) -> bool:
    from fusemix_core.data.media import medium as made

    return made(medium).inline
