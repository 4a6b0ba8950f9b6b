"""The adapter `attention-pool`: which frames of a video count is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter


class AttentionPoolAdapter(Adapter):
    """z = W Σ_t a_t x_t + b with a = softmax_t(q · LN(x_t) / √d), for latents `[n, T · d]`.

    `frames` is T and `dim` is d, the width of one frame's latent, of a view `time [n, T, d]` that
    comes flattened. The query q starts at zero, so that the first pooling is the mean. Latents of
    any other width than T · d (the captions', in the same recipe) have no frames: they only pass
    the affine map. Raises `ConfigError` for impossible options.
    """

    def __init__(self, dim_in: int, dim_out: int, *, frames: int = 1, dim: int = 0) -> None:
        super().__init__()
        if frames < 1 or dim < 0 or (frames > 1 and not dim):
            raise ConfigError(
                f"An attention-pool adapter can't have frames={frames}, dim={dim}.",
                "frames is the number of frames of a video, dim the width of one frame's latent, "
                "as `fusemix encoders show` says: --set adapter.frames=8 --set adapter.dim=768",
            )
        self.frames = frames if frames * dim == dim_in else 1
        width = dim_in // self.frames
        if self.frames > 1:
            self.norm = nn.LayerNorm(width)
            self.query = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, dim_out)

    def attention(self, latents: Tensor) -> Tensor:
        """`[n, T]`, each row of which sums to one: how much each frame counts."""
        if self.frames == 1:
            return latents.new_ones(len(latents), 1)
        x = latents.unflatten(1, (self.frames, -1))
        return (self.norm(x) @ self.query * x.shape[2] ** -0.5).softmax(dim=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = latents.unflatten(1, (self.frames, -1))  # [n, T, d]
        pooled = (self.attention(latents)[:, :, None] * x).sum(dim=1)
        return self.out(pooled)
