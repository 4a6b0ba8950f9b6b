"""`DiffusersGenerator`: what all bridges share. Imports torch, and diffusers only in `load`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.interfaces import Generator, Padded
from fusemix_core.specs import GeneratorSpec

MOST_PIXELS = 2**18
"""Of all images that are drawn at once; a single one may have more."""


class DiffusersGenerator(Generator):
    """A pipeline that draws images row by row, in batches that fit in memory.

    Args:
        spec: As resolved; its options are the defaults.
        device: Where it draws.
    """

    multiple = 8
    """Pixels by which `size` must be divisible."""

    def __init__(self, spec: GeneratorSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device

    def generate(
        self,
        condition: Tensor | Padded,
        *,
        seeds: Sequence[int],
        negative: Tensor | Padded | None = None,
        **options: Any,
    ) -> list[Image.Image]:
        """One image per row: see `Generator.generate`. `size` is pixels a side."""
        rows = self.rows(condition, "condition")
        away = None if negative is None else self.rows(negative, "negative condition")
        if len(seeds) != len(rows) or (away is not None and len(away) != len(rows)):
            raise ConfigError(
                f"{len(rows)} conditions, {len(seeds)} seeds and "
                f"{len(rows) if away is None else len(away)} negative conditions were given.",
                "Give one of each per image.",
            )
        settings = self.settings(options)
        step = max(1, MOST_PIXELS // settings["size"] ** 2)
        images: list[Image.Image] = []
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            images += self.draw(
                rows[part], None if away is None else away[part], list(seeds[part]), settings
            )
        return images

    @abstractmethod
    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        """The images of one batch of checked rows, with all settings."""

    def rows(self, condition: Tensor | Padded, what: str) -> Tensor:
        """float `[n, d]` on the device. Raises ConfigError for another form or width."""
        if isinstance(condition, Padded) or condition.ndim != 2:
            raise ConfigError(
                f"'{self.spec.name}' takes one vector per image as its {what}.",
                f"That is the view '{self.spec.view}' of {self.spec.space or 'the fused model'}.",
            )
        self.check(condition)
        if not torch.isfinite(condition).all():
            raise ConfigError(f"The {what} has values that are not finite numbers.")
        return condition.to(self.device)

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with the defaults of the others. Raises ConfigError for a wrong one."""
        known = {"steps": 25, "guidance": 4.0, **self.spec.options, "size": self.spec.size}
        for option, value in options.items():
            if option not in known:
                raise UnknownNameError.of(f"option of '{self.spec.name}'", option, known)
            if value is not None:
                known[option] = value
        size, steps = known["size"], known["steps"]
        if not isinstance(size, int) or size < 1 or size % self.multiple:
            raise ConfigError(
                f"'{self.spec.name}' draws multiples of {self.multiple} pixels a side, not {size}.",
                f"Example: --size {max(1, round((size or 512) / self.multiple)) * self.multiple}",
            )
        if not isinstance(steps, int) or not 1 <= steps <= 1000:
            raise ConfigError(f"{steps} steps can't be taken.", "Give 1 to 1000.")
        return known


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One source of noise per image, on the CPU, so that all devices draw from the same noise."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(shape: tuple[int, ...], seeds: Sequence[int], like: Tensor) -> Tensor:
    """Normal noise `[len(seeds), *shape]`, each row from its own seed."""
    rows = [torch.randn(shape, generator=g, dtype=like.dtype) for g in generators(seeds)]
    return torch.stack(rows).to(like.device)


def images_of(pixels: Tensor) -> list[Image.Image]:
    """PIL images of float `[n, 3, h, w]` from 0 to 1."""
    values = (pixels.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    return [Image.fromarray(value) for value in values]
