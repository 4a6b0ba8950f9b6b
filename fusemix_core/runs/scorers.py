"""Choosing the scorer of a model."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import Scorer
from fusemix_core.registry import Registry, registry
from fusemix_core.runs.embeddings import SplitEmbeddings
from fusemix_core.runs.private import private_scorers, scorers

BANK_MOST = 65_536
"""Training items of each modality that a scorer is shown; more would not change its statistics."""


def choose_scorer(
    recipe: Recipe,
    train: SplitEmbeddings,
    validation: SplitEmbeddings,
    registry: Registry = registry,
    private: bool = False,
) -> tuple[Part, Scorer]:
    """The recipe's scorer, or whichever registered one has the best validation mean recall. If it
    is `private`, none that keeps training embeddings.

    Scorers learn from training embeddings only. `cosine` wins ties.
    """
    if recipe.scorer is not None:
        candidates = [recipe.scorer]
    else:
        names = private_scorers(registry) if private else scorers(registry)
        candidates = [Part(n) for n in sorted(names, key=lambda n: (n != "cosine", n))]
    best: tuple[float, Part, Scorer] | None = None
    for part in candidates:
        scorer = registry.build("scorer", part)
        scorer.fit(train.embeddings)
        if len(candidates) == 1:
            return part, scorer
        found = retrieval(
            validation.embeddings,
            validation.links,
            scorer.score,
            resamples=0,
            device=validation.device,
        )["mean_recall"]
        if best is None or found > best[0]:
            best = (found, part, scorer)
    assert best is not None
    return best[1], best[2]
