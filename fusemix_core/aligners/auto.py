"""The `auto` aligner: closed forms first, then a network beside them, as far as it pays."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from functools import partial

import torch

from fusemix_core.adapters.kernel import LINEAR
from fusemix_core.aligners.best import Best
from fusemix_core.aligners.budget import Budget
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.complement import (
    INTERRUPTED,
    ComplementAligner,
    best_share,
    mixture,
    only_ctrl_c,
)
from fusemix_core.aligners.judge import Judge, beats
from fusemix_core.aligners.scale import Scale
from fusemix_core.config import Recipe
from fusemix_core.engine import distributed
from fusemix_core.errors import DivergedError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents

SHARES = tuple(tenths / 10 for tenths in range(1, 11))
"""The network's shares that the last choice is made from."""

FEWEST = 512
"""Landmarks that a kernel has at least, if a budget leaves it less time than all of them take."""

LEAST = 512
"""Training pairs that a network needs to be tried. With 1,100 to 1,500 it gained nothing yet."""


class AutoAligner(Aligner):
    """Closed forms, then a network whose embeddings are mixed with theirs.

    1. Linear CCA (`cca` without landmarks), in one pass over the pairs.
    2. Kernel CCA, if it finds more of the validation split.
    3. A network, if the recipe names an adapter and there are 512 pairs or more: trained by the
       recipe's objective and mixup (`ComplementAligner`). It is scored as a member of the `mixture`
       with the closed form, at whatever share suits it best. Training ends when
       `training.patience` evaluations in a row bring less than their noise: one standard error of
       the paired differences between queries. The mixture is kept if it is better than the closed
       form by more than that.

    Ctrl-C ends the fit with the best model so far. If training diverges, the closed form is kept.

    Where modalities are fixed, nothing can be mixed into their embeddings: there the closed forms
    are all.

    Args:
        budget: When to stop: a time (`"90s"`, `"10m"`, `"2h"`) or a number of training steps
            (`"2000 steps"`). By default the fit goes on until more training gains nothing beyond
            its noise. The same budget of steps gives the same model again; a time may not: within
            it the kernel has as many landmarks as there is time for.
        landmarks: How many the kernel has at most; 0 leaves it out. None: as suits the device.
        linear, dim, ridges, powers, kernel_pairs: As of the aligner `cca`.

    Raises:
        ConfigError: For a budget that isn't one, or wrong options.
        DataError: For a modality that no training pair has.
    """

    uses = ("fixed",)

    def __init__(
        self,
        *,
        budget: str = "",
        landmarks: int | None = None,
        linear: float = LINEAR,
        dim: int = 384,
        ridges: Sequence[float] = (3.0, 1.0, 10.0),
        powers: Sequence[float] = (1.0, 0.75, 1.5),
        kernel_pairs: int | None = None,
    ) -> None:
        Budget.of(budget)
        self.budget = budget
        self.landmarks = landmarks
        self.closed = CCAAligner(
            landmarks=landmarks,
            linear=linear,
            dim=dim,
            ridges=ridges,
            powers=powers,
            kernel_pairs=kernel_pairs,
        )

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        budget = Budget.of(self.budget)
        tell = partial(_tell, context)

        def landmarks() -> int:
            most, device = self.closed.most(train, context), context.exact().device
            return distributed.from_first(lambda: self._landmarks(train, budget, most, device))

        if context.fixed:
            tell("Regression on what is fixed")
            return self.closed.regressed((0, landmarks()), train, validation, context)
        best = self.closed.none_yet(train, validation, context)
        tell("Linear CCA")
        self.closed.offer(best, 0, train, recipe)
        try:
            if count := landmarks():
                tell(f"Kernel CCA; the linear map has {_recall(best)}")
                self.closed.offer(best, count, train, recipe)
            judge = Judge(validation, best.context)
            more = recipe.adapter is not None and len(train) >= LEAST and judge.tells
            if more and distributed.from_first(budget.allows):
                tell(f"A network beside it; the closed form has {_recall(best)}")
                closed = best.adapters
                trained = ComplementAligner(closed, budget).fit(train, validation, recipe, context)
                mixed, share = self._mixed(judge, closed, trained, train)
                tell(_share(share))
                return mixed
        except KeyboardInterrupt as stop:
            if not only_ctrl_c(stop):
                raise
            tell(INTERRUPTED)
            for callback in context.callbacks:
                callback.on_cut_short(INTERRUPTED)
        except DivergedError as error:
            tell(f"{error.message} The closed form is kept.")
        return best.adapters

    def _landmarks(
        self, train: PairedLatents, budget: Budget, most: Scale, device: torch.device
    ) -> int:
        """How many landmarks the budget has time for: `most`, halved as often as needed, or 0."""
        landmarks = most.landmarks if self.landmarks is None else self.landmarks
        if not budget.allows() or budget.seconds == math.inf:
            return landmarks if budget.allows() else 0
        pairs, products = min(len(train), most.pairs), products_per_second(device) * budget.left
        while landmarks and kernel_products(pairs, landmarks, train.dims.values()) > products:
            landmarks = landmarks // 2 if landmarks >= 2 * FEWEST else 0
        return landmarks

    def _mixed(
        self,
        judge: Judge,
        closed: dict[str, Adapter],
        trained: dict[str, Adapter],
        train: PairedLatents,
    ) -> tuple[dict[str, Adapter], float]:
        """The mixture at its best share, or the closed form if it is as good; and the share."""

        def chosen() -> float:
            units = judge.embed(closed)
            share, hits = best_share(judge, units, judge.embed(trained), SHARES)
            return share if beats(hits, judge.hits(units)) else 0.0

        share = distributed.from_first(chosen)
        return mixture(closed, trained, share, train) if share else closed, share


def kernel_products(pairs: int, landmarks: int, dims: Collection[int]) -> float:
    """Multiplications that kernel CCA takes, about: similarities, moments, solutions."""
    count = len(dims)
    moments = pairs * landmarks**2 * count / 2
    return pairs * landmarks * sum(dims) + moments + 5 * count * landmarks**3


def products_per_second(device: torch.device) -> float:
    """Multiplications a second in float32 products, as the device has them now."""
    side = 1_024 if device.type == "cpu" else 8_192
    x = torch.ones(side, side, device=device)
    (x @ x).sum().item()  # the first takes longer; read, as a GPU computes on its own
    began = time.perf_counter()
    for _ in range(4):
        x = (x @ x).clamp_(max=1)
    x.sum().item()
    return 4 * side**3 / (time.perf_counter() - began)


def _share(share: float) -> str:
    if share:
        return f"The network is kept, with a share of {share:.0%}"
    return "The closed form is kept: the network adds no more than noise"


def _recall(best: Best) -> str:
    return f"a mean recall of {100 * (best.score or 0):.1f}"


def _tell(context: FitContext, text: str) -> None:
    for callback in context.callbacks:
        callback.on_stage(text)
