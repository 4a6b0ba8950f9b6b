"""Pixels sent to a GPU as bytes, and made what the image processor makes of them there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

_SQUARES = 8
_SIDE = 64


class PixelTable:
    """What an image processor makes of each of the 256 values of a channel, float32 `[c, 256]`.

    Scaling and normalising are nothing more than this table, if each number that a processor gives
    depends only on the byte that it gives without them, and on the channel. Looking a byte up is
    exact on any device, where a division would be rounded in another way.

    Example:
        table = PixelTable.of(whole=processor, plain=resize_and_crop, device=device)
        pixels = table(batch)  # uint8 [n, 3, h, w] on the device -> float32
    """

    def __init__(self, values: Tensor, device: torch.device) -> None:
        self.values = values.flatten().to(device)
        starts = torch.arange(0, values.numel(), 256, dtype=torch.int32)
        self._starts = starts[:, None, None].to(device)

    @classmethod
    def of(
        cls,
        whole: Callable[[Image], Tensor],
        plain: Callable[[Image], Tensor],
        device: torch.device,
    ) -> Self | None:
        """The table of a processor that was tried on images with all values in all channels; None
        if there is no such table, or they did not show it.

        Args:
            whole: gives float32 `[c, h, w]` for an image.
            plain: gives the same as bytes, neither scaled nor normalised.
            device: where batches are looked up.
        """
        values = torch.full((3, 256), torch.nan)
        seen: list[tuple[Tensor, Tensor]] = []
        for image in _probes():
            try:
                expected, given = whole(image), plain(image)
            except Exception:  # a processor without these options raises anything
                return None
            fits = given.dtype == torch.uint8 and expected.dtype == torch.float32
            if not fits or given.shape != expected.shape or given.shape[:-2] != (3,):
                return None
            seen.append((given.flatten(1).long(), expected.flatten(1)))
            values.scatter_(1, *seen[-1])
        same = all(torch.equal(values.gather(1, given), expected) for given, expected in seen)
        return cls(values, device) if same and not values.isnan().any() else None

    def __getstate__(self) -> dict[str, Tensor]:
        """Nothing: a process that decodes asks only whether there is a table."""
        return {}

    def __call__(self, batch: Tensor) -> Tensor:
        """uint8 `[n, c, h, w]` as float32."""
        places = batch.int() + self._starts
        return self.values.index_select(0, places.flatten()).view(batch.shape)


def _probes() -> list[Image]:
    """Images of squares, which show every value in every channel when resized and cropped, and
    noise, which shows what lies between."""
    from PIL import Image

    draw = np.random.default_rng(0)
    values = np.stack([draw.permutation(256) for _ in range(3)], axis=-1).astype(np.uint8)
    squares = values.reshape(-1, _SQUARES, _SQUARES, 3).repeat(_SIDE, axis=1).repeat(_SIDE, axis=2)
    noise = draw.integers(0, 256, (300, 200, 3)).astype(np.uint8)
    return [Image.fromarray(image) for image in (*squares, noise)]
