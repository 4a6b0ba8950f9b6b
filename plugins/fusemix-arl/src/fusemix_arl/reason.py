"""ARL's reasoning layer: a text's tokens see an image, and the entities that they mention (Chen et
al., arXiv:2209.07118)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_EPS = 1e-12
_MASKED = -10_000.0


class Attend(nn.Module):
    """Multi-head attention, then the norm of the sum with the tokens that attend."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """`[n, T, width]` of tokens `x` that attend to `seen` `[n, S, width]`, as far as these are
        there by `mask`, bool `[n, S]`. A row that sees nothing gets nothing."""
        parts = (self.query(x), self.key(seen), self.value(seen))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores + torch.where(mask, 0.0, _MASKED)[:, None, None]
        found = self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return self.norm(found * mask.any(dim=1)[:, None, None] + x)


class Forward(nn.Module):
    """Two linear maps with GELU between them, then the norm of the sum."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc2(gelu(self.fc1(x))) + x)


class Fuse(nn.Module):
    """Adds what entities say to the tokens that mention them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=_EPS)

    def forward(self, text: Tensor, knowledge: Tensor) -> Tensor:
        return self.norm(self.out(text + knowledge) + text)


class ReasonLayer(nn.Module):
    """One layer. Text and entities each attend to their own side and to the image; then each token
    of the text takes in the entities that it mentions.

    Args:
        width, heads, inner: of the text's and the image's tokens.
        knowledge_width, knowledge_heads, knowledge_inner: of the entities.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        knowledge_width: int,
        knowledge_heads: int,
        knowledge_inner: int,
    ) -> None:
        super().__init__()
        self.own, self.cross = Attend(width, heads), Attend(width, heads)
        self.k_own = Attend(knowledge_width, knowledge_heads)
        self.k_cross = Attend(knowledge_width, knowledge_heads)
        self.image_to_knowledge = nn.Linear(width, knowledge_width)
        self.knowledge_to_text = nn.Linear(knowledge_width, width)
        self.fuse = Fuse(width)
        self.ff, self.k_ff = Forward(width, inner), Forward(knowledge_width, knowledge_inner)

    def forward(
        self,
        text: tuple[Tensor, Tensor],
        image: tuple[Tensor, Tensor],
        entities: tuple[Tensor, Tensor],
        position: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(text `[n, L, width]`, entities `[n, E, knowledge_width]`).

        Args:
            text, image, entities: tokens `[n, T, …]`, and which are there, bool `[n, T]`.
            position: `[n, E, L]`: 1 if token l belongs to mention e, else 0.
        """
        (x, text_mask), (seen, seen_mask), (z, mask) = text, image, entities
        x = self.own(x, x, text_mask)
        z = self.k_own(z, z, mask)
        z = self.k_cross(z, self.image_to_knowledge(seen), seen_mask)
        x = self.cross(x, seen, seen_mask)
        x = self.fuse(x, position.transpose(1, 2) @ self.knowledge_to_text(z))
        return self.ff(x), self.k_ff(z)
