"""The adapter `wide`: one wide hidden layer on standardised latents."""

from __future__ import annotations

from torch import Tensor, nn

from fusemix_core.adapters.bottleneck import bottleneck
from fusemix_core.adapters.standardised import StandardisedAdapter
from fusemix_core.errors import ConfigError


class WideAdapter(StandardisedAdapter):
    """z = W₂ dropout(gelu(W₁ √dim_in u + b₁)) + b₂, with u the standardised latent.

    With few layers and many hidden units it learns fast, also from small batches.

    Args:
        dim_in: width of the latents.
        dim_out: width of the embeddings.
        hidden: hidden units.
        dropout: the share of them that is dropped in training.

    Raises:
        ConfigError: for impossible options.
    """

    def __init__(
        self, dim_in: int, dim_out: int, *, hidden: int = 2_048, dropout: float = 0.3
    ) -> None:
        super().__init__(dim_in)
        if hidden < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"A wide adapter can't have hidden={hidden} and dropout={dropout}.",
                "hidden is 1 or more, dropout from 0 to below 1.",
            )
        self.dropout = dropout
        self.fc1 = nn.Linear(dim_in, hidden)
        self.fc2 = nn.Linear(hidden, dim_out)

    def forward(self, latents: Tensor) -> Tensor:
        u = self.standard(latents) * len(self.centre) ** 0.5
        first, second = self.fc1, self.fc2
        nothing = u.new_zeros(u.shape[0], len(second.weight))
        dropout = self.dropout if self.training else 0.0
        return bottleneck(u, first.weight, first.bias, second.weight, second.bias, nothing, dropout)
