"""Latents of items that differ in length, and the two forms in which adapters take latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True, eq=False)
class Padded:
    """Latents of n items, of which each has a number of its own: tokens, frames, places.

    Args:
        values: float `[n, T, d]`. An item's own latents come first; what follows is padding, which
            may contain anything.
        mask: bool `[n, T]`, True if there is a latent. An item that is missing has none.

    Example:
        x = Padded.of([torch.randn(3, 8), torch.randn(5, 8)])
        x.values.shape, x.mask.sum(dim=1)  # (2, 5, 8), [3, 5]
    """

    values: Tensor
    mask: Tensor

    @classmethod
    def of(cls, items: Sequence[Tensor]) -> Padded:
        """The latents `[T_i, d]` of each of one item or more, padded to the longest."""
        lengths = torch.tensor([len(item) for item in items], device=items[0].device)
        values = pad_sequence(list(items), batch_first=True)
        return cls(values, torch.arange(values.shape[1], device=values.device) < lengths[:, None])

    @classmethod
    def cat(cls, parts: Sequence[Padded]) -> Padded:
        """The items of all parts, one after another, padded to the longest part."""
        most = max(part.values.shape[1] for part in parts)
        longer = [part.padded_to(most) for part in parts]
        return cls(torch.cat([x.values for x in longer]), torch.cat([x.mask for x in longer]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Padded:
        """The items of these rows: a slice, or a tensor of indices or of bool."""
        return Padded(self.values[rows], self.mask[rows])

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    def to(self, *args: Any, **options: Any) -> Padded:
        """On another device or in another dtype, as `Tensor.to` of the values."""
        values = self.values.to(*args, **options)
        mask = self.mask.to(values.device, non_blocking=options.get("non_blocking", False))
        return Padded(values, mask)

    def padded_to(self, length: int) -> Padded:
        """With `length` positions an item, no fewer than there are."""
        more = length - self.values.shape[1]
        return Padded(pad(self.values, (0, 0, 0, more)), pad(self.mask, (0, more)))

    def filled(self, value: float = 0.0) -> Tensor:
        """`[n, T, d]`: the values, with `value` in every position of padding."""
        return self.values.masked_fill(~self.mask[..., None], value)


def cat_latents(parts: Sequence[Tensor | Padded]) -> Tensor | Padded:
    """The items of all parts, one part or more, one after another."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return torch.cat(tensors)
    return Padded.cat([as_tokens(part) for part in parts])


def as_rows(latents: Tensor | Padded, dim: int | None = None) -> Tensor:
    """Latents of any view as a plain adapter takes them: one row per item, `[n, dim]`.

    The axes of a view of more (`layers [n, L, d]`, `grid [n, H, W, d]`) become one. Zeros stand
    for the padding of items that differ in length, up to a width of `dim` (that of the longest of
    these items).
    """
    if isinstance(latents, Tensor):
        return latents.flatten(1)
    rows = latents.filled().flatten(1)
    return rows if dim is None else pad(rows, (0, dim - rows.shape[1]))


def as_tokens(latents: Tensor | Padded) -> Padded:
    """Latents of any view as a `TokenAdapter` takes them: `[n, T, d]` and a mask.

    Of a view of more axes (`grid [n, H, W, d]`) all but the last become T; an item of one latent,
    `[n, d]`, has one token.
    """
    if isinstance(latents, Padded):
        return latents
    values = latents[:, None] if latents.ndim == 2 else latents.flatten(1, -2)
    return Padded(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))
