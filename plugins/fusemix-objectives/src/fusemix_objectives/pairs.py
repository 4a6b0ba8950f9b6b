"""What both objectives share: a temperature that is learnt or kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Step
from fusemix_core.objectives.infonce import TEMPERATURE_RANGE
from fusemix_core.objectives.pairwise import PairwiseObjective


class WithTemperature(PairwiseObjective):
    """A loss of two modalities with a temperature, clamped to [0.001, 0.5] before each use."""

    def __init__(self, temperature: float, learnable: bool) -> None:
        super().__init__()
        low, high = TEMPERATURE_RANGE
        if not low <= temperature <= high:
            raise ConfigError(
                f"The objective can't use temperature={temperature}.",
                f"It lies in [{low}, {high}].",
            )
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learnable)

    def forward(self, step: Step) -> Tensor:
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        return super().forward(step)

    def log(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature.detach()}
