"""The cross-modal layer of BridgeTower (Xu et al., arXiv:2206.08657)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_EPS = 1e-12
_MASKED = -10_000.0


class Attention(nn.Module):
    """Multi-head attention, then the norm of the sum with the tokens that asked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """`[n, T, width]`.

        Args:
            x: what asks, `[n, T, width]`.
            seen: what is attended to, `[n, S, width]`.
            mask: bool `[n, S]`. A row that sees nothing gets nothing.
        """
        if not seen.shape[1]:
            return self.norm(x)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(seen), self.value(seen))
        )
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores + torch.where(mask, 0.0, _MASKED)[:, None, None]
        found = self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return self.norm(found * mask.any(dim=1)[:, None, None] + x)


class CrossLayer(nn.Module):
    """Self attention, attention to the other sides, a feed-forward step; a norm after each.

    Args:
        width: of a token.
        heads: of attention.
        inner: width inside the feed-forward step.
    """

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor, mask: Tensor, others: Tensor, seen: Tensor) -> Tensor:
        """Tokens `[n, T, width]`.

        Args:
            x, mask: the tokens of this side, and which are there, bool `[n, T]`.
            others, seen: those of the other sides, `[n, S, width]`, and which are there.
        """
        x = self.own(x, x, mask)
        x = self.cross(x, others, seen)
        return self.norm(self.down(gelu(self.up(x))) + x)
