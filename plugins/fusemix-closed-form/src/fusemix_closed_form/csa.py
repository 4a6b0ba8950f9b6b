"""Canonical similarity analysis: CCA, and a similarity weighted by the correlations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.aligners.best import Best
from fusemix_core.aligners.canonical import Canonical, solve
from fusemix_core.aligners.links import check_links
from fusemix_core.aligners.moments import Moments, moments_of
from fusemix_core.config import Recipe
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents
from fusemix_core.numerics import exact


class CSAAdapter(Adapter):
    """v = unit((x - mean) W), z = √w ∘ v, and one number more that makes z a unit row; all of it
    times |(x - mean) W|, as an adapter's embeddings are not of one norm.

    That number, √(1 - |z|²), is in a column of the modality's own (`side` of `sides`), where
    all others have 0: the cosine of two modalities' embeddings is then Σ_k w_k u_k v_k, the
    similarity of CSA (arXiv 2410.07610) in units of its largest weight. So `dim_out` is the number
    of variates and `sides`. Raises `ConfigError` for fewer columns than that needs.
    """

    def __init__(self, dim_in: int, dim_out: int, *, side: int = 0, sides: int = 2) -> None:
        super().__init__()
        if not 0 <= side < sides < dim_out:
            raise ConfigError(
                f"A csa adapter can't have side={side}, sides={sides} and {dim_out} columns.",
                "There are more columns than sides, and more sides than the side's number.",
            )
        self.side, self.sides = side, sides
        self.register_buffer("mean", torch.zeros(dim_in))
        self.register_buffer("weights", torch.full((dim_out - sides,), 0.5))
        self.map = nn.Parameter(torch.empty(dim_in, dim_out - sides))
        if not self.map.is_meta:  # where it imports torch._dynamo, which takes seconds
            nn.init.normal_(self.map, std=dim_in**-0.5)

    def variates(self, latents: Tensor) -> Tensor:
        """(x - mean) W, `[n, dim_out - sides]`."""
        return (latents - self.mean) @ self.map

    def forward(self, latents: Tensor) -> Tensor:
        variates = self.variates(latents)
        z = normalize(variates, dim=1, eps=1e-12) * self.weights.sqrt()
        rest = (1 - z.square().sum(1)).clamp(min=1e-12).sqrt()
        own = torch.zeros(len(z), self.sides, dtype=z.dtype, device=z.device)
        own[:, self.side] = rest
        return torch.cat([z, own], dim=1) * variates.norm(dim=1, keepdim=True)


class CSAAligner(Aligner):
    """CSA of K ≥ 2 modalities, in one pass over all pairs.

    Plain CCA of the latents about their training means, as the original; a column's weight is its
    correlation, a mean over the pairs of modalities if there are more than two. dim: how many
    columns, at most what the data determine. ridges: in units of the sum of variances over the
    number of pairs, 0 is the original; the map that finds most of the validation split is kept.
    Latents that lack rank have no plain CCA: such a ridge is passed over, and if none is left that
    is a `ConfigError`.
    """

    def __init__(self, *, dim: int = 128, ridges: Sequence[float] = (0.0, 1.0, 10.0)) -> None:
        if dim < 1 or not ridges or min(ridges) < 0:
            raise ConfigError(f"csa can't have dim={dim} and ridges={list(ridges)}.")
        self.dim, self.ridges = dim, tuple(ridges)

    @exact()
    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        check_links(train)
        context = context.exact()
        moments = moments_of(train, context)
        dim = min(recipe.dim or self.dim, len(train) - 1, sorted(moments.dims)[-2])
        traces = [moments.covariance(k, k).trace().item() for k in range(len(moments.dims))]
        least = torch.finfo(train.dtype).eps
        best = Best(validation, context)
        for ridge in self.ridges:
            absolute = [max(t * max(ridge / len(train), least), 1e-30) for t in traces]
            try:
                solved = solve(moments, absolute, dim, context.seed)
            except torch.linalg.LinAlgError:
                continue
            best.offer(_adapters(train, moments, solved), {"ridge": ridge})
        if not best.adapters:
            raise ConfigError(
                f"csa can't be solved with ridges={list(self.ridges)}: latents lack rank.",
                "Add a ridge above 0: --set aligner.ridges=[0,1,10]",
            )
        return best.adapters


def _adapters(train: PairedLatents, moments: Moments, solved: Canonical) -> dict[str, Adapter]:
    weights = solved.correlations / solved.correlations.max().clamp(min=1e-12)
    adapters: dict[str, Adapter] = {}
    for k, (name, dim_in) in enumerate(train.dims.items()):
        sides = len(moments.dims)
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not used
            adapter = CSAAdapter(dim_in, len(weights) + sides, side=k, sides=sides)
        adapter.mean, adapter.weights = moments.mean(k), weights
        adapter.map = nn.Parameter(solved.maps[k])
        adapters[name] = adapter.to(train.dtype).eval()
    return adapters
