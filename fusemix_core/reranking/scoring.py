"""The scores of a network for the candidates of queries."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Padded, PairedLatents, as_tokens
from fusemix_core.numerics import exact
from fusemix_core.reranker import Reranker
from fusemix_core.reranking.split import Shortlist

PAIRS = 512
"""Pairs that a network scores at once."""


@exact()
@torch.no_grad()
def score_shortlist(network: Reranker, tokens: PairedLatents, given: Shortlist) -> Tensor:
    """Scores float32 CPU `[n, k]` of a short list.

    Args:
        network: in eval mode.
        tokens: the tables of both modalities, as `with_tokens` gives them.
        given: the short list.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    parts = [torch.zeros(0, given.candidates.shape[1])]
    for rows in torch.arange(len(given.queries)).split(max(1, PAIRS // parts[0].shape[1])):
        asked = as_tokens(tokens.latents_of(given.query, given.queries[rows], device))
        items, place = given.candidates[rows].unique(return_inverse=True)
        found = as_tokens(tokens.latents_of(given.target, items, device))
        row = torch.arange(len(rows)).repeat_interleave(place.shape[1])
        pairs = {
            given.query: asked[row.to(device)],
            given.target: found[place.flatten().to(device)],
        }
        parts.append(scores_of(network, pairs).cpu().view(place.shape))
    return torch.cat(parts)


def scores_of(network: Reranker, pairs: Mapping[str, Padded]) -> Tensor:
    """The scores float32 `[n]` of n pairs.

    Raises:
        ContractError: the network gives anything else.
    """
    found = network({m: pairs[m] for m in network.inputs})
    count = len(pairs[next(iter(network.inputs))])
    if found.shape != (count,) or not found.isfinite().all():
        raise ContractError(
            f"The re-ranker {type(network).__name__}",
            f"finite scores of shape [{count}]",
            f"shape {list(found.shape)}" if found.shape != (count,) else "NaN or infinity",
        )
    return found.float()
