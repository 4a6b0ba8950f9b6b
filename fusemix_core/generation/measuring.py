"""The images of an evaluation, and their measures by a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusemix_core.evaluation import generated as g
from fusemix_core.fused import FusedModel
from fusemix_core.generation.conditions import How
from fusemix_core.generation.judging import Judge, Real, pixels_of
from fusemix_core.generation.loading import LoadedGenerator

KS = (1, 5, 10)


@dataclass(frozen=True)
class Drawing:
    """Draws from names of concepts and from embeddings, some images of each.

    Attributes:
        draw: the generator.
        model: the fused model.
        target: its fixed modality, that of the names.
        correct: how embeddings are corrected.
        count: images of each.
        seed: of the first image; the next ones have the next numbers.
        settings: options of the generator.
    """

    draw: LoadedGenerator
    model: FusedModel
    target: str
    correct: str
    count: int
    seed: int
    settings: Mapping[str, Any]

    def of_names(self, names: Sequence[str]) -> list[Any]:
        """Images of names, through the generator's own encoder; `count` of each in turn."""
        unique = list(dict.fromkeys(names))
        conditions = self.draw.conditions(self.model, How(self.correct))
        rows = conditions.of_items(self.target, unique, range(len(unique)))
        if len(unique) == 1:
            rows = rows[:1]
        places = torch.tensor([unique.index(name) for name in names])
        return self._drawn(rows[places.repeat_interleave(self.count)])

    def of_rows(self, rows: Tensor, modality: str) -> list[Any]:
        """Images of unit-norm embeddings of a modality, corrected; `count` of each in turn."""
        rows = rows.repeat_interleave(self.count, dim=0)
        conditions = self.draw.conditions(self.model, How(self.correct))
        return self._drawn(conditions.of_embeddings(rows, modality, self._seeds(len(rows))))

    def nearest(self, rows: Tensor, modality: str, names: Sequence[str]) -> list[str]:
        """The name that the fused model finds nearest to each embedding."""
        gallery = self.model.encode(self.target, list(names))
        scores = self.model.similarity(rows, gallery, modality, self.target)
        return [names[i] for i in scores.argmax(dim=1).tolist()]

    def _drawn(self, conditions: Tensor) -> list[Any]:
        return self.draw.draw(conditions, self._seeds(len(conditions)), **self.settings)

    def _seeds(self, count: int) -> range:
        return range(self.seed, self.seed + count)


@dataclass(frozen=True)
class Question:
    """The facts that images are judged by.

    Attributes:
        real: real images of the concepts.
        concepts: int64 `[N]`, the concept of each image's item.
        sources: int64 `[N]`, the number of that item among the n items.
        partners: int64 `[n]`, a real image of each item's concept.
        embeddings: unit-norm `[n, d]`, of the items.
        resamples, seed: of the bootstrap.
    """

    real: Real
    concepts: Tensor
    sources: Tensor
    partners: Tensor
    embeddings: Tensor
    resamples: int
    seed: int

    @property
    def classes(self) -> Tensor:
        """int64 `[K]`: the concepts that the items have."""
        return self.concepts.unique()

    def shares(self, ranks: Tensor, among: Tensor, sources: Tensor) -> dict[str, Any]:
        """R@1, R@5, R@10 and accuracy in percent with their intervals.

        Args:
            ranks: int64 `[N]`, of the own concept among all.
            among: int64 `[N]`, among the concepts of the items only.
            sources: int64 `[N]`, what the bootstrap draws.
        """
        hits = {f"r{k}": ranks < k for k in KS} | {"accuracy": among < 1}
        found: dict[str, Any] = {}
        for name, hit in hits.items():
            value, bounds = g.mean_with_interval(hit, sources, self.resamples, self.seed)
            found |= {name: value, f"{name}_interval": bounds}
        return found

    def ranks(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The ranks of each image's concept among all, and among those of the items; `rows` are as
        `Real.looked_at` gives them."""
        classes = self.classes
        own = torch.searchsorted(classes, self.concepts)
        middles = self.real.centroids
        return (
            g.concept_ranks(rows, self.concepts, middles),
            g.concept_ranks(rows, own, middles[classes]),
        )

    def of_real(self) -> dict[str, Any]:
        """The judge's own limit: real images, each against the centroids of the others."""
        rows = torch.isin(self.real.concepts, self.classes)
        seen = self.real.looked_at(self.real.rows)
        which, ranks = g.left_out_ranks(seen, self.real.concepts)
        kept = rows[which]
        own = torch.searchsorted(self.classes, self.real.concepts[rows])
        inside, among = g.left_out_ranks(seen[rows], own)
        if not len(inside):
            return {}
        found = self.shares(ranks[kept], among, which[kept])
        return found | {"diversity": g.diversity(seen[rows], self.real.concepts[rows])}


def judged(
    images: Sequence[Any], judge: Judge, model: FusedModel, makes: str, question: Question
) -> tuple[dict[str, Any], Tensor]:
    """The measures of images by a judge, and for each whether its own concept comes first.

    Args:
        images: N, in the order of `question.sources`.
        judge: who judges.
        model: the fused model; if it has that modality, AIS is by its embeddings.
        makes: the modality that the generator makes.
        question: the facts that they are judged by.
    """
    real, sources = question.real, question.sources
    rows = judge(images)
    seen = real.looked_at(rows)
    ranks, among = question.ranks(seen)
    found = question.shares(ranks, among, sources)
    partners = real.looked_at(real.rows[question.partners])
    found["iis"] = _percent(g.wins(seen @ partners.T, sources))
    found["ais"] = None
    if makes in model.modalities:
        scores = model.encode(makes, list(images)) @ question.embeddings.T
        found["ais"] = _percent(g.wins(scores, sources))
    shown = real.rows[torch.isin(real.concepts, question.classes)]
    enough = min(len(shown), len(rows)) > 1
    found["kid"] = g.kernel_distance(rows, shown) if enough else None
    found["diversity"] = g.diversity(seen, sources)
    found["copies"] = None
    if real.held is not None:
        near = g.nearest_distances(pixels_of(images), real.pixels[~real.held])
        found["copies"] = float(near.mean())
    return found, ranks < 1


def held_out_distance(real: Real) -> float | None:
    """The mean distance of new real images to the nearest one that was trained on."""
    if real.held is None:
        return None
    near = g.nearest_distances(real.pixels[real.held], real.pixels[~real.held])
    return float(near.mean())


def _percent(shares: Tensor) -> float:
    return float(100 * shares.mean())
