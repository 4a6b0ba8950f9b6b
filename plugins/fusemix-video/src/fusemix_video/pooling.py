"""The adapter `attention-pool`: which frames of a video count is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded, TokenAdapter


class AttentionPoolAdapter(TokenAdapter):
    """z = Σ_t a_t (W x_t + b) with a = softmax_t(q · LN(x_t) / √d), over an item's own frames x
    `[n, T, d]`, of the view `time` or of any other.

    The query q starts at zero, so that the first pooling is the mean. An item of one latent (the
    captions', in the same recipe) only passes the affine map.

    frames, dim: of models that earlier versions saved, whose frames came as one row,
    `dim_in` = frames · dim; any other modality of theirs has the affine map only, and so has
    frames=1. Raises `ConfigError` for impossible options.
    """

    def __init__(self, dim_in: int, dim_out: int, *, frames: int = 0, dim: int = 0) -> None:
        super().__init__()
        if frames < 0 or dim < 0 or (frames > 1 and not dim):
            raise ConfigError(
                f"An attention-pool adapter can't have frames={frames}, dim={dim}.",
                "Leave both unset: frames come from the view, such as --view video=time",
            )
        self.width = dim if frames * dim == dim_in else dim_in
        if frames != 1 and dim in (0, self.width):
            self.norm = nn.LayerNorm(self.width)
            self.query = nn.Parameter(torch.zeros(self.width))
        self.out = nn.Linear(self.width, dim_out)

    def attention(self, latents: Padded) -> Tensor:
        """`[n, T]`: how much each frame counts. Each row sums to one, or to zero without frames."""
        x = self._frames(latents)
        if not hasattr(self, "query"):
            share = x.mask.to(x.dtype)
            return share / share.sum(dim=1, keepdim=True).clamp(min=1)
        scores = self.norm(x.filled()) @ self.query * self.width**-0.5
        least = torch.finfo(scores.dtype).min
        return scores.masked_fill(~x.mask, least).softmax(dim=1).masked_fill(~x.mask, 0)

    def tokens(self, latents: Padded) -> Padded:
        x = self._frames(latents)
        return Padded(self.out(x.filled()), x.mask)

    def pool(self, tokens: Padded, latents: Padded) -> Tensor:
        return (self.attention(latents)[:, :, None] * tokens.filled()).sum(dim=1)

    def _frames(self, latents: Padded) -> Padded:
        """The latents; of a model saved before an item's row, cut as it was then."""
        if latents.values.shape[2] == self.width:
            return latents
        rows = latents.filled().flatten(1)
        values = rows.unflatten(1, (-1, self.width))
        return Padded(values, latents.mask[:, :1].expand(values.shape[:2]))
