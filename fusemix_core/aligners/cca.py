"""The `cca` aligner: regularised canonical correlation of K modalities, in closed form."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from fusemix_core.adapters.residual import ResidualAdapter
from fusemix_core.aligners.canonical import solve
from fusemix_core.aligners.moments import Moments
from fusemix_core.config import Recipe
from fusemix_core.engine.loop import VALIDATION_ROWS, check_links
from fusemix_core.engine.validation import at_most, mean_recall, recalls
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents

MOST_ROWS = 100_000
"""Pairs that the moments are taken over; more change the map by less than the choice of ridge."""

_CHUNK = 2_048
_LEAST_RIDGE = 1e-6
"""Of features whose mean square norm is about 1: keeps a modality that never varies solvable."""


class CCAAligner(Aligner):
    """Regularised CCA of each modality's features (see `ResidualAdapter`), for K ≥ 2 modalities.

    With whitened features w_k = L_k⁻¹ (f_k - mean), L_k L_kᵀ = C_kk + r_k I, the maps are the top
    eigenvectors of the block matrix R with R_km = L_k⁻¹ C_km L_m⁻ᵀ off the diagonal and zero on it
    (MAXVAR, Kettenring 1971); for K = 2 that is regularised CCA exactly. Column i is weighted by
    its correlation to the `power`. The ridge is r_k = ridge · tr(C_kk) / n.

    hidden: random features a modality has beside its own; by default validation chooses between
    none, which is tried first, and `choose_hidden`. ridges, powers: what validation chooses from,
    in the order they are tried; what is better than all before is reported as an evaluation at
    step 0. dim: width of the space, at most what the data determine: one less than the pairs, and
    the second widest modality. Rows that lack a modality count for those they have. Takes moments
    over at most `MOST_ROWS` pairs.
    """

    def __init__(
        self,
        *,
        hidden: int | None = None,
        dim: int = 384,
        ridges: Sequence[float] = (3.0, 10.0, 1.0),
        powers: Sequence[float] = (1.0, 0.75, 0.5),
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
        sizes = {0, choose_hidden(len(train))} if self.hidden is None else {self.hidden}
        best = Best(validation, context)
        for hidden in sorted(sizes):
            self._try(self._prepared(train, dim, hidden, context), train, dim, best, context)
        return best.adapters

    def _try(
        self,
        adapters: dict[str, ResidualAdapter],
        train: PairedLatents,
        dim: int,
        best: Best,
        context: FitContext,
    ) -> None:
        """Offer the maps of every ridge and power on these features."""
        widths = [a.weight.shape[0] for a in adapters.values()]
        moments = Moments(widths, context.device)
        add_rows(moments, adapters, train, context.device)
        spread = [moments.covariance(k, k) for k in range(len(adapters))]
        for ridge in self.ridges:
            ridges = [max(ridge * c.trace().item() / len(train), _LEAST_RIDGE) for c in spread]
            solved = solve(moments, ridges, dim, context.seed)
            for power in self.powers:
                for k, adapter in enumerate(adapters.values()):
                    map_ = solved.weighted(k, power)
                    set_map(adapter, map_, moments.mean(k), spread[k], ridges[k])
                hidden = next(iter(adapters.values())).hidden
                best.offer(adapters, {"hidden": hidden, "ridge": ridge, "power": power})

    def _prepared(
        self, train: PairedLatents, dim: int, hidden: int, context: FitContext
    ) -> dict[str, ResidualAdapter]:
        adapters = {}
        for number, (modality, table) in enumerate(train.tables.items()):
            generator = torch.Generator().manual_seed(context.seed * 1000 + number)
            with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not used
                adapter = ResidualAdapter(table.dim, dim, hidden=hidden)
            ids = train.linked(modality)
            some = ids[torch.randperm(len(ids), generator=generator)[: 4 * _CHUNK]]
            adapter.prepare(table.rows(some).cpu().float(), generator)
            adapters[modality] = adapter.to(context.device).eval()
        return adapters


class Best:
    """The best adapters on the validation split so far; every better one is told to callbacks."""

    def __init__(self, validation: PairedLatents, context: FitContext) -> None:
        self.validation, self.context = validation, context
        self.score: float | None = None
        self.adapters: dict[str, Adapter] = {}

    def offer(self, adapters: dict[str, ResidualAdapter], choices: dict[str, float]) -> None:
        found = recalls(adapters, self.validation, self.context.device)
        score = mean_recall(found)
        if self.adapters and (score or 0.0) <= (self.score or 0.0):
            return
        self.score = score
        self.adapters = {m: copy.deepcopy(a).eval().cpu() for m, a in adapters.items()}
        if score is None:
            return
        first = sum(shares[0] for shares in found.values()) / len(found)
        metrics = {**choices, "recall_at_1": first, "score": score, "best": score}
        for callback in self.context.callbacks:
            callback.on_evaluation(0, metrics)


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
