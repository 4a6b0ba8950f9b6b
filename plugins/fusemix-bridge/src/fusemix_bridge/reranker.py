"""`cross`: the cross-modal encoders of BridgeTower and ManagerTower as a re-ranker."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fusemix_bridge.fuser import CrossFuser
from fusemix_core.interfaces import Padded, Reranker


class CrossReranker(Reranker):
    """Whether two items belong together, by cross-modal layers on the tokens of both.

    The score is a linear map of both sides' vectors, as in the papers, plus their cosine times a
    learnt scale: without it a network that starts from nothing does not learn to match.

    Args:
        inputs: as in `Reranker`.
        layers: as in `CrossFuser`; None is one.
        manager, depth, width, heads, dropout: as in `CrossFuser`.

    Raises:
        ConfigError: an option is not one of these, or a width is not `layers` times another.
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        *,
        manager: str = "bridge",
        layers: int | Mapping[str, int] | None = None,
        depth: int = 2,
        width: int = 128,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(inputs)
        self.network = CrossFuser(
            inputs,
            1,
            manager=manager,
            layers=1 if layers is None else layers,
            depth=depth,
            width=width,
            heads=heads,
            dropout=dropout,
        )

        self.scale = nn.Parameter(torch.tensor(10.0).log())

    def prepare(self, tokens: Mapping[str, Tensor]) -> None:
        for modality, standard in zip(self.inputs, self.network.standards, strict=True):
            standard.learn(tokens[modality])

    def layer_weights(self) -> dict[str, list[Tensor]]:
        """As in `CrossFuser`."""
        return self.network.layer_weights()

    def forward(self, latents: Mapping[str, Padded]) -> Tensor:
        first = latents[next(iter(self.inputs))]
        present = torch.ones(len(first), len(self.inputs), dtype=torch.bool, device=first.device)
        first, second = sides = self.network.pooled(latents, present)
        own = self.network.head(self.network.dropout(torch.cat(sides, dim=1)))[:, 0]
        return own + self.scale.exp() * cosine_similarity(first, second)
