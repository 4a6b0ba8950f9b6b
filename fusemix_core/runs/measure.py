"""Measuring adapters on a split: embed what the split links, choose a scorer, compute metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusemix_core.adapters.embedding import embed_items
from fusemix_core.config import Part, Recipe
from fusemix_core.evaluation.examples import Retrieved, examples
from fusemix_core.evaluation.geometry import geometry
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import Adapter, PairedLatents, Scorer
from fusemix_core.registry import Registry, registry

MEASURED_MOST = 20_000
"""Rows of a split that are measured; a seeded sample of a larger one, as a gallery of a million
tells no more and takes its square in time."""

BANK_MOST = 65_536
"""Training items of each modality that a scorer is shown; more would not change its statistics."""


@dataclass
class SplitEmbeddings:
    """The unit-norm embeddings of the items that a split links, numbered from 0.

    embeddings: modality → float32 CPU `[n, d]`; links: int64 `[m, K]` into these;
    items: modality → int64 `[n]`, the numbers the items have in the dataset.
    """

    embeddings: dict[str, Tensor]
    links: Tensor
    items: dict[str, Tensor]


@torch.inference_mode()
def embed_split(
    adapters: Mapping[str, Adapter], pairs: PairedLatents, device: torch.device, most: int = 0
) -> SplitEmbeddings:
    """Embed each item linked in `pairs` once; with `most`, an even sample of that many items
    (links are then not kept)."""
    embeddings, items, columns = {}, {}, []
    for column, (modality, table) in enumerate(pairs.tables.items()):
        ids = pairs.linked(modality)
        if most and len(ids) > most:
            ids = ids[torch.linspace(0, len(ids) - 1, most).round().long()]
        adapter = adapters[modality].to(device).eval()
        embeddings[modality] = embed_items(adapter, table, ids, device).float().cpu()
        items[modality] = ids
        if not most:
            own = pairs.links[:, column]
            columns.append(torch.where(own < 0, -1, torch.searchsorted(ids, own.clamp(min=0))))
    links = torch.stack(columns, dim=1) if columns else torch.zeros(0, len(items), dtype=torch.long)
    return SplitEmbeddings(embeddings, links, items)


def choose_scorer(
    recipe: Recipe,
    train: SplitEmbeddings,
    validation: SplitEmbeddings,
    registry: Registry = registry,
) -> tuple[Part, Scorer]:
    """The recipe's scorer, or whichever registered one has the best validation mean recall.

    Scorers learn from training embeddings only. `cosine` wins ties.
    """
    if recipe.scorer is not None:
        candidates = [recipe.scorer]
    else:
        names = [spec.name for _, spec in registry.all_components("scorer")]
        candidates = [Part(n) for n in sorted(names, key=lambda n: (n != "cosine", n))]
    best: tuple[float, Part, Scorer] | None = None
    for part in candidates:
        scorer = registry.build("scorer", part)
        scorer.fit(train.embeddings)
        if len(candidates) == 1:
            return part, scorer
        found = retrieval(validation.embeddings, validation.links, scorer.score, resamples=0)[
            "mean_recall"
        ]
        if best is None or found > best[0]:
            best = (found, part, scorer)
    assert best is not None
    return best[1], best[2]


def measure(
    split: SplitEmbeddings, name: str, scorer: Scorer, seed: int = 0, of: Collection[str] = ()
) -> dict[str, Any]:
    """Retrieval by the scorer of that name and, where it is not `cosine`, by cosine too; and the
    geometry of the space. `of`: as in `retrieval`."""
    out = {"retrieval": retrieval(split.embeddings, split.links, scorer.score, seed=seed, of=of)}
    if name != "cosine":
        out["retrieval_cosine"] = retrieval(split.embeddings, split.links, seed=seed, of=of)
    out["geometry"] = geometry(split.embeddings, split.links, seed=seed)
    return out


def draw_examples(
    split: SplitEmbeddings,
    scorer: Scorer,
    seed: int = 0,
    right: int = 4,
    wrong: int = 4,
    of: Collection[str] = (),
) -> list[Retrieved]:
    """Right and wrong retrievals of every direction, with the items' numbers in the split. `of`: as
    in `retrieval`."""
    modalities = list(split.embeddings)
    return [
        found
        for query in modalities
        for target in modalities
        if query != target and (not of or query in of or target in of)
        for found in examples(
            split.embeddings,
            split.links,
            query,
            target,
            scorer.score,
            right=right,
            wrong=wrong,
            seed=seed,
        )
    ]
