"""`attention`: a transformer on the tokens of all modalities."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded


class Layer(nn.Module):
    """A pre-norm transformer layer.

    Args:
        width: of a token.
        heads: of attention.
        dropout: of both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.ff_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor, first: int | None = None) -> Tensor:
        """Tokens `[n, T, width]`; if `first` is given, only so many of the first ones.

        Args:
            tokens: `[n, T, width]`.
            mask: bool `[n, T]`, the tokens that others see.
        """
        normed = self.norm(tokens)
        q = self._split(self.query(normed[:, :first]))
        k, v = (self._split(x) for x in self.keys(normed).chunk(2, dim=-1))
        seen = scaled_dot_product_attention(q, k, v, mask[:, None, None])
        hidden = tokens[:, :first] + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.down(gelu(self.up(self.ff_norm(hidden)))))

    def _split(self, x: Tensor) -> Tensor:
        """`[n, T, width]` as `[n, heads, T, width / heads]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionFuser(TrainedFuser[Padded]):
    """A transformer on the tokens of all modalities; a pooled latent is one token. Each token is
    standardised, mapped to one width and gets the embedding of its modality. The scores are a
    linear map of a learnt query, which attends to all of them.

    Args:
        inputs: modality → the width of a token.
        outputs, mix, drop, training: as in `TrainedFuser`.
        width: of all tokens inside.
        layers: of the transformer, 1 or more.
        heads: of attention, which divide `width`.
        dropout: of each branch.

    Raises:
        ConfigError: there is no layer, or `heads` does not divide `width`.
    """

    uses = ("tokens",)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        mix: float = 0.4,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if layers < 1 or heads < 1 or width % heads:
            raise ConfigError(
                f"The fuser 'attention' has layers={layers}, heads={heads} and width={width}.",
                "There is one layer or more, and heads divides width.",
            )
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.layers = Modules(Layer(width, heads, dropout) for _ in range(layers))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        tokens = [self.query.expand(len(present), 1, -1)]
        masks = [present.new_ones(len(present), 1)]
        for k, modality in enumerate(self.inputs):
            mask = latents[modality].mask & present[:, k, None]
            given = Padded(latents[modality].values, mask).filled()
            tokens.append(self.dropout(self.maps[k](self.standards[k](given))) + self.types[k])
            masks.append(mask)
        hidden, mask = torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
        for number, layer in enumerate(self.layers, 1):
            hidden = layer(hidden, mask, first=1 if number == len(self.layers) else None)
        return self.head(self.norm(hidden[:, 0]))
