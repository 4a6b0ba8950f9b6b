"""What both objectives share: unit rows of each pair of modalities, and a temperature."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Objective
from fusemix_core.objectives.infonce import TEMPERATURE_RANGE
from fusemix_core.objectives.pairs import unit_rows


class PairwiseObjective(Objective):
    """The mean of a loss over the pairs of modalities, each on the rows that have both, two or
    more of them; 0 if there is no such pair. The temperature is clamped to [0.001, 0.5]."""

    def __init__(self, temperature: float, learnable: bool) -> None:
        super().__init__()
        low, high = TEMPERATURE_RANGE
        if not low <= temperature <= high:
            raise ConfigError(
                f"The objective can't use temperature={temperature}.",
                f"It lies in [{low}, {high}].",
            )
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learnable)

    def forward(self, embeddings: Mapping[str, Tensor], links: Tensor) -> Tensor:
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        losses = [self.loss(x, y) for x, y in _pairs(embeddings, links) if len(x) >= 2]
        if not losses:
            return sum(x.sum() for x in embeddings.values()) * 0
        return torch.stack(losses).mean()

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of unit rows `[n, d]` of two modalities, row i of both partners."""

    def log(self) -> dict[str, float]:
        return {"temperature": self.temperature.item()}


def _pairs(embeddings: Mapping[str, Tensor], links: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    present = (links >= 0).all(dim=1)  # [n, K]
    values = list(embeddings.values())
    for i, j in combinations(range(len(values)), 2):
        both = present[:, i] & present[:, j]
        yield unit_rows(values[i][both]), unit_rows(values[j][both])
