"""Alignment as a fit: adapters trained by an objective, scored by recall."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusemix_core.aligners.recalls import mean_recall, recalls
from fusemix_core.engine.fit import Fit
from fusemix_core.interfaces import Adapter, Objective, PairedLatents, Step


class Alignment(Fit[Adapter]):
    """Adapters by modality, an objective, and what stays fixed.

    Args:
        adapters: those to train.
        objective: started, if it has a `start`.
        validation: the pairs whose recall chooses the weights.
        fixed: the adapters of all other modalities.
        device: where the validation split is embedded.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        objective: Objective,
        validation: PairedLatents | None = None,
        fixed: Mapping[str, Adapter] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(adapters, objective, fixed)
        self.validation, self.device, self._log = validation, device, objective.log
        self.uses, self.reader = objective.uses, f"The objective {type(objective).__name__}"

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        return self.modules | self.fixed

    def loss(self, step: Step) -> Tensor:
        return self.objective(step)

    def log(self) -> Mapping[str, float | Tensor]:
        return self._log()

    def validate(self, modules: Mapping[str, Adapter]) -> dict[str, float]:
        assert self.validation is not None, "this fit has no validation split"
        adapters = {**modules, **self.fixed}
        found = recalls(adapters, self.validation, self.device, fixed=self.fixed)
        score = mean_recall(found)
        if score is None:
            return {}
        metrics = {f"recall_at_1/{a}-{b}": shares[0] for (a, b), shares in found.items()}
        metrics["recall_at_1"] = sum(shares[0] for shares in found.values()) / len(found)
        return {**metrics, "score": score}
