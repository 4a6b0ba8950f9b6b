"""What a closed form that has tried several maps keeps."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from fusemix_core.aligners.recalls import Recalls, mean_recall, recalls
from fusemix_core.interfaces import Adapter, FitContext, PairedLatents


class Best:
    """The best adapters on the validation split so far; callbacks learn of every better one."""

    def __init__(self, validation: PairedLatents, context: FitContext) -> None:
        self.validation, self.context = validation, context
        self.score: float | None = None
        self.adapters: dict[str, Adapter] = {}

    def offer(
        self,
        adapters: Mapping[str, Adapter],
        choices: Mapping[str, float],
        found: Recalls | None = None,
    ) -> None:
        """Take a copy of the adapters if nothing was as good.

        Args:
            adapters: modality → adapter.
            choices: what led to them.
            found: their recalls on the validation split, if they are known already.
        """
        if found is None:
            fixed, device = self.context.fixed, self.context.device
            found = recalls(adapters, self.validation, device, fixed=fixed)
        score = mean_recall(found)
        if self.adapters and (score or 0.0) <= (self.score or 0.0):
            return
        self.score = score
        fixed = self.context.fixed
        self.adapters = {
            m: fixed[m] if m in fixed else copy.deepcopy(a).eval().cpu()
            for m, a in adapters.items()
        }
        if score is None:
            return
        first = sum(shares[0] for shares in found.values()) / len(found)
        metrics = {**choices, "recall_at_1": first, "score": score, "best": score}
        for callback in self.context.callbacks:
            callback.on_evaluation(0, metrics)
