"""The trained layers below HAMMER's heads: of each side, and of the text with the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, pad, scaled_dot_product_attention

from fusemix_core.fusers.standard import Standard
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded

PLACES = 512
"""Tokens of an item that have an embedding of their place; later ones have none."""


class Side(NamedTuple):
    """Tokens `[n, 1 + T, w]`, the first the cls, and a mask, bool `[n, 1 + T]`."""

    tokens: Tensor
    mask: Tensor


class Attention(nn.Module):
    """Multi-head attention behind a norm, which is added to the tokens that ask."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """`[n, T, w]` of tokens that see others `[n, S, w]`, those of mask bool `[n, S]`."""
        q = self._split(self.query(self.norm(tokens)))
        k, v = (self._split(x) for x in self.keys(seen).chunk(2, dim=-1))
        found = scaled_dot_product_attention(q, k, v, mask[:, None, None])
        return tokens + self.dropout(self.out(found.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention to the own side and, if it is `crossed`, to the other; then a feed-forward step."""

    def __init__(self, width: int, heads: int, dropout: float, crossed: bool = False) -> None:
        super().__init__()
        self.own = Attention(width, heads, dropout)
        self.cross = Attention(width, heads, dropout) if crossed else None
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, side: Side, other: Side | None = None) -> Side:
        tokens = self.own(side.tokens, self.own.norm(side.tokens), side.mask)
        if self.cross is not None and other is not None:
            tokens = self.cross(tokens, other.tokens, other.mask)
        inner = self.dropout(self.down(gelu(self.up(self.norm(tokens)))))
        return Side(tokens + inner, side.mask)


class Unimodal(nn.Module):
    """Both sides by themselves: tokens standardised and mapped to one width, with embeddings of
    modality and place, behind a learnt cls, through layers of self attention.

    The text is one side, all other modalities together are the other. A side that a row lacks has
    only its cls, so that there is always something to attend to.

    Args:
        inputs: modality → the width of a token.
        text: the modality of the first side; it may be missing from `inputs`.
        width, heads, dropout: of the layers.
        depth: layers of each side.
        dim: of the embeddings that are contrasted.
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        text: str,
        width: int,
        heads: int,
        dropout: float,
        depth: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.inputs, self.text = dict(inputs), text
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.places = nn.Parameter(0.02 * torch.randn(len(inputs), PLACES, width))
        self.first = nn.Parameter(0.02 * torch.randn(2, width))
        self.layers = Modules(
            Modules(Layer(width, heads, dropout) for _ in range(depth)) for _ in range(2)
        )
        self.norms = Modules(nn.LayerNorm(width) for _ in range(2))
        self.projections = Modules(nn.Linear(width, dim) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, latents: Mapping[str, Padded], present: Tensor) -> tuple[Side, Side]:
        """The text, and what it is seen with."""
        text = [k for k, m in enumerate(self.inputs) if m == self.text]
        rest = [k for k in range(len(self.inputs)) if k not in text]
        both = []
        for number, members in enumerate((text, rest)):
            side = self._side(number, members, latents, present)
            for layer in self.layers[number]:
                side = layer(side)
            both.append(Side(self.norms[number](side.tokens), side.mask))
        return both[0], both[1]

    def embeddings(self, sides: tuple[Side, Side]) -> Tensor:
        """Unit rows `[n, 2, dim]` of the cls of both sides."""
        rows = (p(side.tokens[:, 0]) for p, side in zip(self.projections, sides, strict=True))
        return torch.stack([normalize(one, dim=1) for one in rows], dim=1)

    def there(self, present: Tensor) -> Tensor:
        """bool `[n, 2]`: whether a row has anything on each side."""
        text = torch.tensor([m == self.text for m in self.inputs], device=present.device)
        return torch.stack([(present & text).any(dim=1), (present & ~text).any(dim=1)], dim=1)

    def _side(
        self, number: int, members: list[int], latents: Mapping[str, Padded], present: Tensor
    ) -> Side:
        """The tokens of some modalities behind their cls."""
        count, names = len(present), list(self.inputs)
        tokens = [self.first[number].expand(count, 1, -1)]
        masks = [present.new_ones(count, 1)]
        for k in members:
            given = latents[names[k]]
            mask = given.mask & present[:, k, None]
            filled = self.standards[k](Padded(given.values, mask).filled())
            places = self.places[k, : filled.shape[1]]
            places = pad(places, (0, 0, 0, filled.shape[1] - len(places)))
            tokens.append(self.dropout(self.maps[k](filled)) + self.types[k] + places)
            masks.append(mask)
        return Side(torch.cat(tokens, dim=1), torch.cat(masks, dim=1))
