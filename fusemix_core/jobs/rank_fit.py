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
from fusemix_core.config import Recipe
from fusemix_core.engine.randomness import at_most
from fusemix_core.errors import DataError
from fusemix_core.evaluation.bootstrap import cluster_sums, components, paired_interval
from fusemix_core.interfaces import Adapter, Callback, FitContext, PairedLatents
from fusemix_core.registry import registry
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import training_rows


@dataclass
class _Score(Callback):
    """The best evaluation of a fit."""

    found: dict[str, float] = field(default_factory=dict)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        if metrics.get("score", -1.0) > self.found.get("score", -1.0):
            self.found = dict(metrics)


def fitted_to(
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
        first, second: as `fitted_to` returns them, of the same validation split and seed.
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
