"""`EmojiGenerator`: a pipeline of Kandinsky's kind, small enough to be a file of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from fusemix_diffusers.files import located
from fusemix_diffusers.kandinsky import KandinskyGenerator
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fusemix_core.specs import GeneratorSpec

DRAWN = 32
"""Pixels a side that the networks draw; other sizes are enlarged from it."""

BANK = "conditions.safetensors"


class EmojiGenerator(KandinskyGenerator):
    """Draws emoji from MiniLM's vectors.

    Example:
        draw = load_generator("emoji")
        draw(None, {"text": "a red fish"})[0].save("fish.png")
    """

    known: Tensor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.multiple = 1  # images are enlarged to any size

    @classmethod
    def load(cls, spec: GeneratorSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged weights, or a folder of the same form (`emoji@FOLDER`)."""
        self = super().load(spec, device, dtype)
        path = Path(located(spec)) / BANK
        self.known = load_file(path)["rows"].float() if path.is_file() else None
        return self

    def bank(self) -> Tensor | None:
        """MiniLM's vectors of all names that it was trained on, float32 `[names, 384]`."""
        return self.known

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        size = settings["size"]
        images = super().draw(condition, negative, seeds, {**settings, "size": DRAWN})
        if size == DRAWN:
            return images
        return [image.resize((size, size), Image.Resampling.LANCZOS) for image in images]
