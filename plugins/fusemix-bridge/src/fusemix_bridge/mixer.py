"""`layer-mixer`: the static manager of ManagerTower as an adapter of the view `layers`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded, TokenAdapter


class LayerMixer(TokenAdapter):
    """A weighted sum of an encoder's layers, each with a norm of its own, then a linear map.

    For the view `layers`, each latent being a token here; a view of one latent has one layer.
    `weights` shows which layers matter.

    Args:
        dim_in: width of a layer's latent.
        dim_out: width of an embedding.
        most: layers at most.
        per_channel: whether each channel has weights of its own.

    Raises:
        ConfigError: there are more layers than `most`.
    """

    def __init__(
        self, dim_in: int, dim_out: int, *, most: int = 32, per_channel: bool = True
    ) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.ones(most, dim_in))
        self.shifts = nn.Parameter(torch.zeros(most, dim_in))
        self.scores = nn.Parameter(torch.zeros(most, dim_in if per_channel else 1))
        self.out = nn.Linear(dim_in, dim_out)

    def weights(self, layers: int) -> Tensor:
        """Of so many layers, `[layers, dim_in or 1]`; each channel's sum to 1."""
        return self.scores[:layers].softmax(dim=0)

    def tokens(self, latents: Padded) -> Padded:
        given, mask = latents.filled(), latents.mask
        layers = given.shape[1]
        if layers > len(self.scores):
            raise ConfigError(
                f"The adapter 'layer-mixer' is for {len(self.scores)} layers at most, and these "
                f"latents have {layers}.",
                f"--set adapter.most={layers}, or a view of layers: it is not for tokens.",
            )
        normed = layer_norm(given, given.shape[2:]) * self.gains[:layers] + self.shifts[:layers]
        scores = self.scores[:layers].masked_fill(~mask[..., None], -1e30)
        weighted = scores.softmax(dim=1) * normed
        # The bias once over all layers, so that their sum is the map of the sum.
        count = mask.sum(dim=1).clamp(min=1)[:, None, None]
        return Padded(weighted @ self.out.weight.T + self.out.bias / count, mask)

    def pool(self, tokens: Padded, latents: Padded) -> Tensor:
        return tokens.filled().sum(dim=1)
