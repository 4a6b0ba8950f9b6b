"""ASIF: an item is described by how much it resembles the training pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.aligners.best import Best
from fusemix_core.aligners.links import check_links
from fusemix_core.config import Recipe
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents, as_rows
from fusemix_core.numerics import exact


class ASIFAdapter(Adapter):
    """The `keep` largest cosines to the anchors, each to the power `power`; 0 elsewhere.

    `dim_out` is the number of anchors, unit rows of the modality. Largest by value, not by
    magnitude; a negative value of an even power changes its sign, as in the original. The anchors
    are training items, or learnt if the adapter is trained by gradient.
    """

    def __init__(self, dim_in: int, dim_out: int, *, keep: int = 800, power: int = 8) -> None:
        super().__init__()
        if keep < 1 or power < 1:
            raise ConfigError(f"An asif adapter can't have keep={keep} and power={power}.")
        self.keep, self.power = keep, power
        self.anchors = nn.Parameter(normalize(torch.randn(dim_out, dim_in), dim=1))

    def forward(self, latents: Tensor) -> Tensor:
        similar = normalize(latents, dim=1, eps=1e-12) @ self.anchors.T
        values, index = similar.topk(min(self.keep, len(self.anchors)), dim=1)
        return torch.zeros_like(similar).scatter(1, index, values.pow(self.power))


class ASIFAligner(Aligner):
    """ASIF (arXiv 2210.01738) for K ≥ 2 modalities: pairs of training items are the anchors.

    anchors: how many at most, drawn by the seed; an embedding is as wide as there are anchors. A
    modality that an anchor lacks is 0 there. keeps, powers: what validation chooses from. The
    original normalises the candidates only; the cosine here divides a query's scores by one number
    more, and ranks alike.
    """

    def __init__(
        self,
        *,
        anchors: int = 4096,
        keeps: Sequence[int] = (100, 400, 800),
        powers: Sequence[int] = (1, 4, 8),
    ) -> None:
        if anchors < 1 or not keeps or not powers or min(*keeps, *powers) < 1:
            raise ConfigError(
                f"asif can't have anchors={anchors}, keeps={list(keeps)}, powers={list(powers)}.",
                "All are 1 or more, and there is at least one of each.",
            )
        self.anchors, self.keeps, self.powers = anchors, tuple(keeps), tuple(powers)

    @exact()
    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        check_links(train)
        context = context.exact()
        generator = torch.Generator().manual_seed(context.seed)
        most = recipe.dim or self.anchors
        rows = torch.randperm(len(train), generator=generator)[:most].sort().values
        latents = train.batch(rows).latents
        anchors = {m: normalize(as_rows(x), dim=1, eps=1e-12) for m, x in latents.items()}
        best = Best(validation, context)
        for keep in dict.fromkeys(min(k, len(rows)) for k in self.keeps):
            for power in self.powers:
                adapters = {}
                for modality, own in anchors.items():
                    with torch.random.fork_rng(devices=[]):  # random anchors, not used
                        adapter = ASIFAdapter(own.shape[1], len(own), keep=keep, power=power)
                    adapter.anchors = nn.Parameter(own)
                    adapters[modality] = adapter.to(context.device).eval()
                best.offer(adapters, {"keep": keep, "power": power})
        return best.adapters
