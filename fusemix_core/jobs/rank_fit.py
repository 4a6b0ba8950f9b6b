"""What a recipe finds of the validation split for a pairing of encoders, and how two compare."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fusemix_core.aligners.recalls import (
    VALIDATION_ROWS,
    Hits,
    directions,
    embedded,
    hits_of,
)
from fusemix_core.config import Part, Recipe
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.engine.randomness import at_most
from fusemix_core.errors import DataError
from fusemix_core.evaluation.bootstrap import cluster_sums, components, paired_interval
from fusemix_core.interfaces import Adapter, Callback, FitContext, LatentTable, PairedLatents
from fusemix_core.registry import registry
from fusemix_core.runs.encode import paired
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import training_rows

CLOSED_FORM = Recipe("linear-cca", Part("cca", {"landmarks": 0}))


@dataclass(frozen=True)
class Candidate:
    """One encoder's latents of one modality: all of a view, or one layer of its `layers`.
    `seconds`: what encoding 1,000 items takes, None if it was never measured."""

    label: str
    table: LatentTable
    seconds: float | None = None


@dataclass
class Pairing:
    """Two candidates. `measures`: name → {value, chance, excess, p}; `probe`: what the recipe
    reached, None without one; see `rank`. `seconds`: what encoding 1,000 pairs took on this
    machine, None if unknown. `behind`: `points` of mean recall that the first pairing finds more,
    and their paired 95% `interval`; None of the first."""

    a: str
    b: str
    measures: dict[str, dict[str, float]]
    recall_at_1: float
    score: float
    probe: dict[str, float] | None = None
    seconds: float | None = None
    behind: dict[str, Any] | None = None

    @property
    def reached(self) -> float:
        """The mean recall to rank by."""
        return self.score if self.probe is None else self.probe["score"]

    @property
    def tied(self) -> bool:
        """Whether validation doesn't show that the first pairing is better."""
        between = None if self.behind is None else self.behind["interval"]
        return self.behind is not None and (between is None or between[0] <= 0)

    def as_dict(self) -> dict[str, Any]:
        return vars(self).copy()


@dataclass
class _Score(Callback):
    """The best evaluation of a fit."""

    found: dict[str, float] = field(default_factory=dict)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        if metrics.get("score", -1.0) > self.found.get("score", -1.0):
            self.found = dict(metrics)


def pairings_of(
    dataset: PairedDataset,
    candidates: Mapping[str, list[Candidate]],
    above: Mapping[tuple[int, int], dict[str, dict[str, float]]],
    probe: Recipe | None,
    context: FitContext,
) -> list[Pairing]:
    """The pairings, best recall first, each with its distance to the first. `above`: the measures
    of each."""
    first, second = candidates
    fitted: list[tuple[Pairing, Hits, PairedLatents]] = []
    for i, x in enumerate(candidates[first]):
        for j, y in enumerate(candidates[second]):
            tables = {first: x.table, second: y.table}
            parts = {n: paired(dataset, tables, n) for n in ("train", "validation")}
            found, hits = _fitted_to(parts, CLOSED_FORM, context)
            reached = None
            if probe is not None:
                reached, hits = _fitted_to(parts, probe, context)
            seconds = None
            if x.seconds is not None and y.seconds is not None:
                seconds = x.seconds + y.seconds
            scores = found["recall_at_1"], found["score"]
            made = Pairing(x.label, y.label, above[i, j], *scores, reached, seconds)
            fitted.append((made, hits, parts["validation"]))
    fitted.sort(key=lambda one: -one[0].reached)
    for pairing, hits, validation in fitted[1:]:
        pairing.behind = lead(fitted[0][1], hits, validation, context.seed)
    return [pairing for pairing, *_ in fitted]


def _fitted_to(
    parts: Mapping[str, PairedLatents], recipe: Recipe, context: FitContext
) -> tuple[dict[str, float], Hits]:
    """The best validation recall that a recipe reaches, with the seconds that it takes, and which
    queries it finds."""
    aligner = registry.build("aligner", recipe.aligner)
    noted, began = _Score(), time.monotonic()
    context = replace(context, callbacks=[noted])
    train = parts["train"]
    rows = training_rows(recipe, train, context, Reporter()).sort().values
    adapters = aligner.fit(train.select(rows), parts["validation"], recipe, context)
    if not noted.found:
        raise DataError("No validation pair to measure recall on.", "Give more pairs.")
    reached = {name: noted.found[name] for name in ("recall_at_1", "score")}
    reached["seconds"] = time.monotonic() - began
    return reached, _found_by(adapters, parts["validation"], context)


def _found_by(
    adapters: Mapping[str, Adapter], validation: PairedLatents, context: FitContext
) -> Hits:
    """Which validation queries have their partner among the nearest."""
    some = at_most(validation, VALIDATION_ROWS, context.seed)
    return hits_of(embedded(adapters, some, context.device), some)


def lead(first: Hits, second: Hits, validation: PairedLatents, seed: int) -> dict[str, Any]:
    """The mean recall of `first` less that of `second`, in percent points.

    Args:
        first, second: as `_fitted_to` returns them, of the same validation split and seed.
        validation: the split.
        seed: of the bootstrap.

    Returns:
        `points`, and the paired 95% `interval` by a bootstrap over groups of linked items, None if
        all items are linked.
    """
    some = at_most(validation, VALIDATION_ROWS, seed)
    links = some.links.numpy()
    sizes = [len(some.tables[m]) for m in some.modalities]
    labels = dict(zip(some.modalities, components(links, sizes), strict=True))
    own, more = [], []
    for of in directions(some):
        pair = of.query, of.target
        ahead = (first[pair].double() - second[pair].double()).mean(dim=1).numpy()
        own.append(labels[of.query][some.linked(of.query)[of.queries].numpy()])
        more.append(np.stack([np.ones(len(ahead)), ahead], axis=1))
    points = 100 * float(np.mean([values[:, 1].mean() for values in more]))
    sums = cluster_sums(own, more).reshape(-1, len(more), 2)
    return {"points": points, "interval": paired_interval([sums], shared=True, seed=seed)}
