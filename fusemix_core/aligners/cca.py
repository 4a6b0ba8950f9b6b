"""The `cca` aligner: regularised canonical correlation of K modalities, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.adapters.kernel import LINEAR, KernelAdapter
from fusemix_core.aligners.best import Best
from fusemix_core.aligners.canonical import Canonical, solve
from fusemix_core.aligners.crosses import rows_pay
from fusemix_core.aligners.features import (
    LEAST_RIDGE,
    kernel_norm,
    prepared_adapter,
    variance_of,
)
from fusemix_core.aligners.links import check_links
from fusemix_core.aligners.moments import Moments, moments_of
from fusemix_core.aligners.recalls import (
    VALIDATION_ROWS,
    Recalls,
    embedded,
    mean_recall,
    recalls_of,
)
from fusemix_core.aligners.regression import regress
from fusemix_core.aligners.scale import Scale, scale_for
from fusemix_core.config import Recipe
from fusemix_core.engine import distributed
from fusemix_core.engine.randomness import at_most
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents
from fusemix_core.numerics import exact

FEW = 512
"""Landmarks that the ridge is chosen with, if the second widest modality has more than `MANY`."""

MANY = 1_500


class CCAAligner(Aligner):
    """Regularised CCA of each modality's features, for K ≥ 2 modalities.

    Features are the standardised latents (`KernelAdapter` without landmarks: linear CCA) or the
    similarities to its landmarks (kernel CCA, exact if all training items are landmarks, else
    Nyström's). A direction α of features pays the ridge r_k αᵀ P_k α: P_k is the identity, or
    k(landmarks, landmarks), which makes it the kernel's own norm.

    With whitened features w_k = L_k⁻¹ (f_k - mean), L_k L_kᵀ = C_kk + r_k P_k, the maps are the top
    eigenvectors of the block matrix R with R_km = L_k⁻¹ C_km L_m⁻ᵀ off the diagonal and zero on it
    (MAXVAR, Kettenring 1971); for K = 2 that is regularised CCA exactly. Column i is weighted by
    its correlation to the `power`. The ridge is r_k = ridge · v_k / n, with the variance v_k of the
    features in the norm of P_k.

    Linear CCA takes all pairs, in one pass from which every ridge and power is solved; only how
    latents are standardised comes from a sample of a few thousand items. The kernel takes at most
    `kernel_pairs`, drawn by the seed: each costs it some two times `landmarks`² multiplications for
    two modalities. It gains by more of them (see docs/decisions/0010-all-pairs-in-one-pass.md). How
    many of both there are by default depends on the device (`scale_for`): 4,096 landmarks and
    100,000 pairs on a CPU, up to 16,384 and a million on a large GPU.
    With many landmarks, the first few of them choose the ridge, and the maps of all are solved for
    this one only (docs/decisions/0020-faster-kernel.md).

    Where modalities are fixed there is one side to fit, and that is regression of the same features
    (`regress`) with the same `landmarks`, `ridges` and `kernel_pairs`.

    Rows that lack a modality count for those they have. A map that is better on validation than all
    before it is reported as an evaluation at step 0.

    Args:
        landmarks: how many a modality has at most, 0 for linear CCA. By default both are fitted,
            linear CCA first, and validation chooses.
        linear: the linear part of the kernel.
        dim: width of the space, at most what the data determine: one less than the pairs, and the
            second widest modality.
        ridges: what validation chooses from: the first one, then lower ones as long as they find
            more, or else higher ones.
        powers: what it chooses from at each ridge, of the weights of columns.
        kernel_pairs: how many pairs a kernel takes at most. None: as suits the device.
        root: whether skewed latents, such as those of rectified networks, are replaced by their
            signed square root. Without it the map can be written as layers of other libraries.

    Example:
        adapters = CCAAligner(landmarks=0, dim=128).fit(train, validation, recipe, FitContext())
    """

    uses = ("fixed",)

    def __init__(
        self,
        *,
        landmarks: int | None = None,
        linear: float = LINEAR,
        dim: int = 384,
        ridges: Sequence[float] = (3.0, 1.0, 10.0),
        powers: Sequence[float] = (1.0, 0.75, 1.5),
        kernel_pairs: int | None = None,
        root: bool = True,
    ) -> None:
        fewest = dim if kernel_pairs is None else min(dim, kernel_pairs)
        if fewest < 1 or not powers or min(landmarks or 0, linear) < 0:
            raise ConfigError(
                "cca needs dim and kernel_pairs ≥ 1, at least one power, landmarks and linear ≥ 0.",
                "Example: --set aligner.dim=384",
            )
        if not ridges or min(ridges) <= 0:
            raise ConfigError(
                "cca needs at least one ridge, all above 0.",
                "Example: --set aligner.ridges=[1,3,10]",
            )
        self.landmarks, self.linear = landmarks, linear
        self.dim, self.kernel_pairs, self.root = dim, kernel_pairs, root
        self.ridges, self.powers = tuple(ridges), tuple(powers)

    @exact()
    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        most = self.most(train, context).landmarks
        tried = (0, most) if self.landmarks is None else (self.landmarks,)
        if context.fixed:
            return self.regressed(tried, train, validation, context)
        best = self.none_yet(train, validation, context)
        for landmarks in tried:
            self.offer(best, landmarks, train, recipe)
        return best.adapters

    def most(self, train: PairedLatents, context: FitContext) -> Scale:
        """How large the kernel is at most: as the options say, or as suits the device of the first
        process."""
        device, count = context.exact().device, len(train.modalities)
        usual = Scale(*distributed.from_first(lambda: astuple(scale_for(device, count))))
        return Scale(self.landmarks or usual.landmarks, self.kernel_pairs or usual.pairs)

    @exact()
    def regressed(
        self,
        tried: Sequence[int],
        train: PairedLatents,
        validation: PairedLatents,
        context: FitContext,
    ) -> dict[str, Adapter]:
        """What `fit` gives where modalities are fixed, the best of these numbers of landmarks."""
        check_links(train, context.fixed)
        options = self.ridges, self.most(train, context).pairs
        how = {"linear": self.linear, "root": self.root}
        return regress(train, validation, context.exact(), tried, *options, **how)

    def none_yet(
        self, train: PairedLatents, validation: PairedLatents, context: FitContext
    ) -> Best:
        """What `offer` is to better: no maps."""
        check_links(train)
        context = context.exact()
        return Best(at_most(validation, VALIDATION_ROWS, context.seed), context)

    @exact()
    def offer(self, best: Best, landmarks: int, train: PairedLatents, recipe: Recipe) -> None:
        """Offer the maps of features with so many landmarks, with every power, at the ridge that
        is best, or if there are many landmarks that is best with the first `FEW` of them."""
        context = best.context
        most = self.most(train, context).pairs
        some = at_most(train, most, context.seed) if landmarks else train
        dim = min(recipe.dim or self.dim, len(some) - 1, sorted(some.dims.values())[-2])
        like = {m: a for m, a in best.adapters.items() if isinstance(a, KernelAdapter)}
        adapters = prepared(some, dim, landmarks, context, self.linear, like, self.root)
        full = Problem.of(adapters, some, context)
        if sorted(full.moments.dims)[-2] > MANY and full.norms[0] is not None:
            few = self._chosen(full.first(FEW), best.validation)
            top = self._tried(full, few.ridge, best.validation, few.solved.maps)
        else:
            top = self._chosen(full, best.validation)
        for power, found in top.found:
            full.give(top.solved, top.solved.correlations**power)
            used = max(len(a.landmarks) for a in adapters.values())
            best.offer(adapters, {"landmarks": used, "ridge": top.ridge, "power": power}, found)

    def _tried(
        self,
        problem: Problem,
        ridge: float,
        validation: PairedLatents,
        start: Sequence[Tensor] = (),
    ) -> Tried:
        solved = problem.solved(ridge, start)
        return Tried(ridge, solved, list(problem.recalls(solved, self.powers, validation)))

    def _chosen(self, problem: Problem, validation: PairedLatents) -> Tried:
        """The ridge whose maps find most of the validation split.

        From the first ridge on, lower ones are tried as long as they find more, or else higher
        ones: the scores are taken to have one peak.
        """
        first = self.ridges[0]
        top = self._tried(problem, first, validation)
        lower = sorted((r for r in self.ridges if r < first), reverse=True)
        for way in (lower, sorted(r for r in self.ridges if r > first)):
            for ridge in way:
                more = self._tried(problem, ridge, validation)
                if more.score <= top.score:
                    break
                top = more
            if top.ridge != first:
                break
        return top


@dataclass(frozen=True)
class Tried:
    """The maps at a ridge, and of each power what they find of the validation split."""

    ridge: float
    solved: Canonical
    found: list[tuple[float, Recalls]]

    @property
    def score(self) -> float:
        return max(mean_recall(found) or 0.0 for _, found in self.found)


def prepared(
    train: PairedLatents,
    dim: int,
    landmarks: int,
    context: FitContext,
    linear: float = LINEAR,
    like: Mapping[str, KernelAdapter] = MappingProxyType({}),
    root: bool = True,
) -> dict[str, KernelAdapter]:
    """Adapters without a map yet, each with `landmarks` of its training items or all of them;
    those in `like` have their latents standardised already. `root`: as in `CCAAligner`."""
    if landmarks:  # few items, such as labels, span no wider space
        counts = [min(landmarks, len(train.linked(m))) for m in train.modalities]
        dim = min(dim, sorted(counts)[-2])
    adapters = {}
    for number, modality in enumerate(train.modalities):
        seed = context.seed * 1000 + number
        adapters[modality] = prepared_adapter(
            train,
            modality,
            dim,
            landmarks,
            seed,
            context.device,
            linear,
            like.get(modality),
            root,
        )
    return adapters


def moments_seen(
    adapters: dict[str, KernelAdapter], train: PairedLatents, context: FitContext
) -> Moments:
    """The moments of the adapters' features over all pairs."""
    parts = list(adapters.values())
    if all(not len(adapter.landmarks) for adapter in parts):
        # The standard latents are affine in the unit ones: one step for the moments, not a row.
        moments = moments_of(train, context, [lambda x, a=a: a.unit(x.float()) for a in parts])
        moments.standardise([a.centre for a in parts], [a.scale for a in parts])
        return moments
    dims = [adapter.weight.shape[0] for adapter in parts]
    keep = rows_pay(len(train), dims, parts[0].weight.shape[1])
    features = [lambda x, a=a: a.features(x.float()) for a in parts]
    return moments_of(train, context, features, dims, keep)


@dataclass(frozen=True)
class Problem:
    """What every ridge is solved from.

    adapters: modality → adapter, whose map `give` sets. norms: of each modality what its ridge
    counts weights by, see `kernel_norm`. variances: of each modality, in that norm. pairs: how many
    there are. seed: of random starts.
    """

    adapters: dict[str, KernelAdapter]
    moments: Moments
    norms: list[Tensor | None]
    variances: list[float]
    pairs: int
    context: FitContext

    @classmethod
    def of(
        cls, adapters: dict[str, KernelAdapter], train: PairedLatents, context: FitContext
    ) -> Problem:
        moments = moments_seen(adapters, train, context)
        norms = [kernel_norm(adapter) for adapter in adapters.values()]
        variances = [
            moments.variance(k) if norm is None else variance_of(norm)
            for k, norm in enumerate(norms)
        ]
        return cls(adapters, moments, norms, variances, len(train), context)

    def first(self, count: int) -> Problem:
        """The same of each modality's first `count` landmarks."""
        adapters = {m: adapter.first(count) for m, adapter in self.adapters.items()}
        norms = [None if norm is None else norm[:count, :count] for norm in self.norms]
        return replace(self, adapters=adapters, moments=self.moments.first(count), norms=norms)

    def solved(self, ridge: float, start: Sequence[Tensor] = ()) -> Canonical:
        """The maps at a ridge in units of the variance over the number of pairs; an iteration
        begins with those of the first features, if they are given."""
        dim = min(len(next(iter(self.adapters.values())).bias), sorted(self.moments.dims)[-2])
        ridges = [max(ridge * v / self.pairs, LEAST_RIDGE) for v in self.variances]
        return solve(self.moments, ridges, dim, self.context.seed, self.norms, start)

    @torch.no_grad()
    def give(self, solved: Canonical, weights: Tensor) -> None:
        """Set the adapters' maps, their columns weighted, and scaled so that the mean square norm
        of embeddings is 1: the step of an optimiser then means the same whatever the data."""
        for k, adapter in enumerate(self.adapters.values()):
            norm = (solved.energies[k] * weights.square()).sum().clamp(min=1e-24).sqrt()
            map_ = solved.maps[k] * (weights / norm)
            adapter.weight.copy_(map_)
            adapter.bias.copy_(-(self.moments.mean(k) @ map_))

    def recalls(
        self, solved: Canonical, powers: Sequence[float], validation: PairedLatents
    ) -> Iterator[tuple[float, Recalls]]:
        """(power, recalls on the validation split) of each; it is embedded once for all."""
        self.give(solved, torch.ones_like(solved.correlations))
        unit = embedded(self.adapters, validation, self.context.device) if len(validation) else {}
        for power in powers:
            weights = (solved.correlations**power).float()
            weighted = {m: normalize(rows * weights, dim=1) for m, rows in unit.items()}
            yield power, recalls_of(weighted, validation) if unit else {}
