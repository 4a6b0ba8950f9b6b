"""Fitting the networks of a plan of `fusemix rerank` to the pairs of a fused model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from fusemix_core.context import FitContext
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import PairedLatents
from fusemix_core.reranking.fitting import FittedReranker, fit_reranker
from fusemix_core.reranking.split import Split
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.models import embed_for
from fusemix_core.runs.reranking import RerankPlan, layers_of, same_texts


def splits_of(model: FusedModel, own: Encoded, encoded: Encoded) -> dict[str, Split]:
    """The three splits as a re-ranker sees them.

    Args:
        model: the fused model.
        own: the data by its encoders.
        encoded: the same data by those of the tokens. Items have the same numbers in both.
    """
    found = embed_for(model, own.paired())
    embeddings = {}
    for modality, table in encoded.tables.items():
        embeddings[modality] = torch.zeros(len(table), model.dim)
        embeddings[modality][found.ids[modality]] = found.embeddings[modality]
    same = {m: torch.from_numpy(ids) for m, ids in same_texts(encoded.dataset).items()}
    links = torch.from_numpy(encoded.dataset.links)
    return {
        name: Split(
            PairedLatents(dict(encoded.tables), links[torch.from_numpy(rows)]),
            embeddings,
            model.scorer.score,
            same,
        )
        for name, rows in encoded.dataset.splits.items()
    }


def fit_networks(
    plan: RerankPlan,
    encoded: Encoded,
    splits: Mapping[str, Split],
    context: Callable[[str], FitContext],
) -> tuple[dict[str, FittedReranker], dict[str, float]]:
    """Train each network of a plan, and choose the weight of its score on validation.

    Args:
        plan: the networks and the settings.
        encoded: the tokens.
        splits: as `splits_of` gives them.
        context: name of a network → the context of its fit.

    Returns:
        name → fitted network; name → seconds.
    """
    layers = {
        m: layers_of(spec, plan.views[m], encoded.tables[m].shape[-1])
        for m, spec in plan.specs.items()
    }
    pairs, settings = (splits["train"], splits["validation"]), plan.config.settings
    fitted, seconds = {}, {}
    for name, part in plan.networks.items():
        began = time.monotonic()
        fitted[name] = fit_reranker(part, *pairs, settings, context(name), layers)
        seconds[name] = time.monotonic() - began
    return fitted, seconds
