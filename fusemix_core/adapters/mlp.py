"""The `mlp` adapter of FuseMix: inverted-bottleneck residual blocks, then a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from fusemix_core.adapters.bottleneck import bottleneck
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter


class Block(nn.Module):
    """x + W2 dropout(gelu(W1 LN(x) + b1)) + b2, with int(expansion · dim) hidden units."""

    def __init__(self, dim: int, expansion: float, dropout: float) -> None:
        super().__init__()
        hidden = int(expansion * dim)
        self.ln = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.dropout = dropout
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        w1, b1 = self.fc1.weight, self.fc1.bias
        if torch.is_grad_enabled() and not x.requires_grad:
            # Latents need no gradient. With the norm's scale and offset moved into fc1, nothing
            # asks for that of fc1's input either: a matrix product of six less.
            normed = layer_norm(x, self.ln.normalized_shape, eps=self.ln.eps)
            w1, b1 = w1 * self.ln.weight, b1 + w1 @ self.ln.bias
        else:
            normed = self.ln(x)
        dropout = self.dropout if self.training else 0.0
        return bottleneck(normed, w1, b1, self.fc2.weight, self.fc2.bias, x, dropout)


class MlpAdapter(Adapter):
    """FuseMix's adapter (arXiv 2312.10144): latents `[n, dim_in]` → embeddings `[n, dim_out]`.

    `blocks` residual blocks at the latents' own width (`block0`, `block1`, …: LayerNorm, linear to
    `expansion` times the width, exact GELU, dropout, linear back), then LayerNorm (`out_norm`) and
    a linear layer (`out`, with an offset if `bias`).

    The defaults are those of the published four-block adapter, but for `dropout`: 0 is the
    default of the original's model class, while its published run sets 0.6, as `fusemix`
    does. Weights are drawn as `torch.nn.Linear` draws them. Raises `ConfigError` for impossible
    options.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        blocks: int = 4,
        expansion: float = 4.0,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if blocks < 0 or int(expansion * dim_in) < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"An mlp adapter can't have blocks={blocks}, expansion={expansion}, "
                f"dropout={dropout}.",
                "blocks is 0 or more, expansion more than 0, dropout from 0 to below 1.",
            )
        self.blocks = blocks
        for i in range(blocks):
            self.add_module(f"block{i}", Block(dim_in, expansion, dropout))
        self.out_norm = nn.LayerNorm(dim_in)
        self.out = nn.Linear(dim_in, dim_out, bias=bias)

    def forward(self, latents: Tensor) -> Tensor:
        x = latents
        for i in range(self.blocks):
            x = self.get_submodule(f"block{i}")(x)
        return self.out(self.out_norm(x))
