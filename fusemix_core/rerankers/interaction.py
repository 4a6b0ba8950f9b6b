"""`interaction`: late interaction of tokens (ColBERT, Khattab & Zaharia, arXiv:2004.12832)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.fusers.standard import Standard
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded
from fusemix_core.reranker import Reranker


class Interaction(Reranker):
    """The cosine of each token with the token of the other side that it fits best, averaged.

    The tokens of each side go through a linear map of their own. The score is the mean over the
    tokens of one side, plus the mean over those of the other, times a learnt scale.

    Args:
        inputs: as in `Reranker`.
        width: of a token after the map.
        dropout: share of a token's values that are dropped before the map, in training.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self, inputs: Mapping[str, int], *, width: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__(inputs)
        if width < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"The re-ranker 'interaction' has width={width} and dropout={dropout}.",
                "width is 1 or more; dropout is from 0 to below 1.",
            )
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def prepare(self, tokens: Mapping[str, Tensor]) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(tokens[modality])

    def forward(self, latents: Mapping[str, Padded]) -> Tensor:
        first, second = (
            self._mapped(k, latents[modality]) for k, modality in enumerate(self.inputs)
        )
        masks = [latents[modality].mask for modality in self.inputs]
        cosines = first @ second.transpose(1, 2)
        best = [
            cosines.masked_fill(~masks[1][:, None], -1.0).amax(dim=2),
            cosines.masked_fill(~masks[0][:, :, None], -1.0).amax(dim=1),
        ]
        means = [
            (found * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            for found, mask in zip(best, masks, strict=True)
        ]
        return self.scale.exp() * (means[0] + means[1])

    def _mapped(self, k: int, tokens: Padded) -> Tensor:
        """The tokens of a side, unit norm `[n, T, width]`."""
        standard = self.standards[k](tokens.filled())
        return normalize(self.maps[k](self.dropout(standard)), dim=2)
