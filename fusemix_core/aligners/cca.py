"""The `cca` aligner: regularised canonical correlation of K modalities, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.adapters.residual import ResidualAdapter
from fusemix_core.aligners.moments import Moments
from fusemix_core.config import Recipe
from fusemix_core.engine.loop import VALIDATION_ROWS, check_links
from fusemix_core.engine.validation import at_most, validation_score
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents

MOST_ROWS = 100_000
"""Pairs that the moments are taken over; more change the map by less than the choice of ridge."""

_CHUNK = 2_048
_LEAST_RIDGE = 1e-6
"""Of features whose mean square norm is about 1: keeps a modality that never varies solvable."""

_DENSE = 1_200
"""Up to this order the eigenproblem is solved densely, above it in a Krylov space."""


class CCAAligner(Aligner):
    """Regularised CCA of each modality's features (see `ResidualAdapter`), for K ≥ 2 modalities.

    With whitened features w_k = L_k⁻¹ (f_k - mean), L_k L_kᵀ = C_kk + r_k I, the maps are the top
    eigenvectors of the block matrix R with R_km = L_k⁻¹ C_km L_m⁻ᵀ off the diagonal and zero on it
    (MAXVAR, Kettenring 1971); for K = 2 that is regularised CCA exactly. Column i is weighted by
    its correlation to the `power`. The ridge is r_k = ridge · tr(C_kk) / n.

    hidden: random features a modality has beside its own (None: `choose_hidden`). ridges, powers:
    what validation chooses from. dim: width of the space, at most what the data determine: one
    less than the pairs, and the second widest modality. Rows that lack a modality count for those
    they have. Takes float64 moments over at most `MOST_ROWS` pairs.
    """

    def __init__(
        self,
        *,
        hidden: int | None = None,
        dim: int = 384,
        ridges: Sequence[float] = (1.0, 3.0, 10.0),
        powers: Sequence[float] = (0.5, 0.75, 1.0),
    ) -> None:
        if dim < 1 or not ridges or not powers or min(ridges) <= 0:
            raise ConfigError(
                "cca needs dim ≥ 1, at least one power, and ridges above 0.",
                "Example: --set start.dim=384 --set start.ridges=[1,3,10]",
            )
        self.hidden, self.dim = hidden, dim
        self.ridges, self.powers = tuple(ridges), tuple(powers)

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        check_links(train)
        train = at_most(train, MOST_ROWS, context.seed)
        validation = at_most(validation, VALIDATION_ROWS, context.seed)
        dim = min(recipe.dim or self.dim, len(train) - 1, sorted(train.dims.values())[-2])
        adapters = self._prepared(train, dim, context)
        widths = [a.weight.shape[0] for a in adapters.values()]
        moments = Moments(widths, context.device)
        add_rows(moments, adapters, train, context.device)
        best: tuple[float, dict[str, dict[str, Tensor]]] | None = None
        spread = [moments.covariance(k, k) for k in range(len(adapters))]
        for ridge in self.ridges:
            ridges = [max(ridge * c.trace().item() / len(train), _LEAST_RIDGE) for c in spread]
            solved = solve(moments, ridges, dim, context.seed)
            for power in self.powers:
                for k, adapter in enumerate(adapters.values()):
                    map_ = solved.weighted(k, power)
                    set_map(adapter, map_, moments.mean(k), spread[k], ridges[k])
                score = validation_score(adapters, validation, context.device) or 0.0
                if best is None or score > best[0]:
                    kept = {
                        m: {n: t.clone() for n, t in a.state_dict().items()}
                        for m, a in adapters.items()
                    }
                    best = score, kept
        for modality, adapter in adapters.items():
            adapter.load_state_dict(best[1][modality])
            adapter.eval().cpu()
        return dict(adapters)

    def _prepared(
        self, train: PairedLatents, dim: int, context: FitContext
    ) -> dict[str, ResidualAdapter]:
        adapters = {}
        hidden = choose_hidden(len(train)) if self.hidden is None else self.hidden
        for number, (modality, table) in enumerate(train.tables.items()):
            generator = torch.Generator().manual_seed(context.seed * 1000 + number)
            with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not used
                adapter = ResidualAdapter(table.dim, dim, hidden=hidden)
            ids = train.linked(modality)
            some = ids[torch.randperm(len(ids), generator=generator)[: 4 * _CHUNK]]
            adapter.prepare(table.rows(some).cpu().float(), generator)
            adapters[modality] = adapter.to(context.device).eval()
        return adapters


def choose_hidden(pairs: int) -> int:
    """Random features for so many training pairs: none where the linear path alone overfits."""
    return 0 if pairs < 500 else min(1 << ((pairs // 2).bit_length() - 1), 2048)


@torch.no_grad()
def add_rows(
    moments: Moments,
    adapters: dict[str, ResidualAdapter],
    train: PairedLatents,
    device: torch.device,
) -> None:
    """Add the features of every row of the links to the moments."""
    for rows in torch.arange(len(train)).split(_CHUNK):
        batch = train.batch(rows, device)
        features = [adapters[m].features(x.float()) for m, x in batch.latents.items()]
        moments.update(features, batch.present())


@torch.no_grad()
def set_map(
    adapter: ResidualAdapter, map_: Tensor, mean: Tensor, covariance: Tensor, ridge: float
) -> None:
    """Give an adapter the map (f - mean) @ map, scaled so that the mean square norm of embeddings
    is 1: the step of an optimiser then means the same whatever the data."""
    scale = ((covariance @ map_) * map_).sum().clamp(min=1e-24).sqrt()
    adapter.weight.copy_(map_ / scale)
    adapter.bias.copy_(-(mean @ map_) / scale)
    adapter.noise.fill_(ridge**0.5)


@dataclass(frozen=True)
class Canonical:
    """maps[k]: float64 `[d_k, dim]`; correlations: `[dim]`, means over the pairs of modalities, in
    [0, 1], decreasing."""

    maps: list[Tensor]
    correlations: Tensor

    def weighted(self, k: int, power: float) -> Tensor:
        return self.maps[k] * self.correlations**power


def solve(moments: Moments, ridges: Sequence[float], dim: int, seed: int = 0) -> Canonical:
    """Regularised multi-set CCA of the moments; `ridges` are absolute, one a modality."""
    dims = moments.dims
    factors = []
    for k in range(len(dims)):
        covariance = moments.covariance(k, k)
        covariance = (covariance + covariance.T) / 2
        covariance.diagonal().add_(ridges[k])
        factors.append(torch.linalg.cholesky(covariance))
    starts = [sum(dims[:k]) for k in range(len(dims) + 1)]
    blocks = torch.zeros(starts[-1], starts[-1], dtype=torch.float64, device=factors[0].device)
    for k in range(len(dims)):
        for m in range(k + 1, len(dims)):
            if not moments.met(k, m):
                continue
            cross = torch.linalg.solve_triangular(factors[k], moments.covariance(k, m), upper=False)
            cross = torch.linalg.solve_triangular(factors[m], cross.T, upper=False)  # [d_m, d_k]
            blocks[starts[m] : starts[m + 1], starts[k] : starts[k + 1]] = cross
            blocks[starts[k] : starts[k + 1], starts[m] : starts[m + 1]] = cross.T
    values, vectors = top_eigenpairs(blocks, dim, seed)
    maps = [
        torch.linalg.solve_triangular(
            factors[k].T, vectors[starts[k] : starts[k + 1]] * len(dims) ** 0.5, upper=True
        )
        for k in range(len(dims))
    ]
    return Canonical(maps, (values / (len(dims) - 1)).clamp(0, 1))


def top_eigenpairs(matrix: Tensor, dim: int, seed: int, depth: int = 4) -> tuple[Tensor, Tensor]:
    """The `dim` largest eigenvalues of a symmetric matrix, decreasing, and their eigenvectors.

    Large ones by Rayleigh-Ritz in a randomised block Krylov space (Musco and Musco, 2015).
    """
    size = len(matrix)
    width = dim + dim // 8 + 8
    if size <= _DENSE or (depth + 1) * width >= size:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(size, width, generator=generator, dtype=matrix.dtype).to(matrix.device)
    blocks = []
    for _ in range(depth):
        block = torch.linalg.qr(matrix @ block).Q
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)).Q
    values, vectors = torch.linalg.eigh(basis.T @ (matrix @ basis))
    return values.flip(0)[:dim], basis @ vectors.flip(1)[:, :dim]
