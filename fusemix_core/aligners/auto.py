"""The `auto` aligner: closed forms first, then a network beside them, as far as it pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from fusemix_core.adapters.kernel import LINEAR
from fusemix_core.aligners.budget import Budget
from fusemix_core.aligners.cca import LANDMARKS, CCAAligner
from fusemix_core.aligners.complement import (
    INTERRUPTED,
    ComplementAligner,
    best_share,
    mixture,
    only_ctrl_c,
)
from fusemix_core.aligners.judge import Judge, beats, score_of
from fusemix_core.config import Recipe
from fusemix_core.engine import distributed
from fusemix_core.errors import DivergedError
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents

SHARES = tuple(tenths / 10 for tenths in range(1, 11))
"""The network's shares that the last choice is made from."""

LEAST = 512
"""Training pairs that a network needs to be tried: with fewer it never gained on any set."""


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
            its noise. The same budget of steps gives the same model again; a time may not.
        landmarks: How many the kernel has at most; 0 leaves it out.
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
        landmarks: int = LANDMARKS,
        linear: float = LINEAR,
        dim: int = 384,
        ridges: Sequence[float] = (3.0, 1.0, 10.0),
        powers: Sequence[float] = (1.0, 0.75, 1.5),
        kernel_pairs: int = 100_000,
    ) -> None:
        Budget.of(budget)
        self.budget = budget
        rest = {"ridges": ridges, "powers": powers, "kernel_pairs": kernel_pairs}
        self.linear = CCAAligner(landmarks=0, linear=linear, dim=dim, **rest)
        self.kernel = CCAAligner(landmarks=landmarks, linear=linear, dim=dim, **rest)

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        budget = Budget.of(self.budget)
        data = train, validation, recipe, context
        tell = partial(_tell, context)

        def left() -> bool:
            return distributed.from_first(budget.allows)

        tell("Linear CCA")
        best = linear = self.linear.fit(*data)
        judge = Judge(validation, context)
        score = self._score(judge, linear)
        try:
            if left() and self.kernel.landmarks:
                tell(f"Kernel CCA; the linear map has a mean recall of {100 * score:.1f}")
                kernel = self.kernel.fit(*data)
                if (more := self._score(judge, kernel)) > score:
                    best, score = kernel, more
            if left() and self._trains(train, recipe, context) and judge.tells:
                tell(f"A network beside it; the closed form has {100 * score:.1f}")
                trained = ComplementAligner(best, budget).fit(*data)
                best = self._mixed(judge, best, trained, train)
        except KeyboardInterrupt as stop:
            if not only_ctrl_c(stop):
                raise
            tell(INTERRUPTED)
        except DivergedError as error:
            tell(f"{error.message} The closed form is kept.")
        return best

    def _trains(self, train: PairedLatents, recipe: Recipe, context: FitContext) -> bool:
        """Whether a network is tried."""
        return recipe.adapter is not None and not context.fixed and len(train) >= LEAST

    def _score(self, judge: Judge, adapters: Mapping[str, Adapter]) -> float:
        return score_of(judge.hits(judge.embed(adapters)))

    def _mixed(
        self,
        judge: Judge,
        closed: dict[str, Adapter],
        trained: dict[str, Adapter],
        train: PairedLatents,
    ) -> dict[str, Adapter]:
        """The mixture at its best share, or the closed form if it is as good."""

        def chosen() -> float:
            units = judge.embed(closed)
            share, hits = best_share(judge, units, judge.embed(trained), SHARES)
            return share if beats(hits, judge.hits(units)) else 0.0

        share = distributed.from_first(chosen)
        return mixture(closed, trained, share, train) if share else closed


def _tell(context: FitContext, text: str) -> None:
    for callback in context.callbacks:
        callback.on_stage(text)
