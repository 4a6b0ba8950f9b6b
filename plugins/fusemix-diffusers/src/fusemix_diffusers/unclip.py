"""`UnclipGenerator`: a `StableUnCLIPImg2ImgPipeline`, which an image embedding conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_diffusers.piped import PipedGenerator


class UnclipGenerator(PipedGenerator):
    """Stable unCLIP: the embedding with a little noise, and a prompt if there is one.

    `noise_level` (0 to 999) blurs the embedding: more variety, and more tolerance for an embedding
    that is not quite an image's. The condition "nothing" is the pipeline's own: zeros after the
    noise.
    """

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        level = settings["noise_level"]
        most = self.pipeline.image_noising_scheduler.config.num_train_timesteps
        if not isinstance(level, int) or not 0 <= level < most:
            raise ConfigError(f"The noise level is {level}.", f"Give 0 to {most - 1}.")
        dtype = self.pipeline.unet.dtype
        inputs = {
            "image_embeds": condition.to(dtype),
            "prompt": self.prompts(settings, len(seeds)),
            "noise_level": level,
        }
        if negative is None or settings["guidance"] <= 1:
            return self.run(seeds, settings, **inputs)
        with self._away_from(negative.to(dtype), level):
            return self.run(seeds, settings, **inputs)

    @contextmanager
    def _away_from(self, negative: Tensor, level: int) -> Iterator[None]:
        """Inside, the pipeline is guided away from these embeddings, without noise. For
        a row of zeros it does what it always does."""
        pipeline = self.pipeline
        own = pipeline._encode_image
        labels = pipeline.noise_image_embeddings(negative, level, torch.zeros_like(negative))
        labels = labels * negative.any(dim=1, keepdim=True)

        def encode(*args: Any, **given: Any) -> Tensor:
            found = own(*args, **given)  # what to keep away from comes first
            return torch.cat([labels.to(found), found[len(labels) :]])

        pipeline._encode_image = encode
        try:
            yield
        finally:
            del pipeline._encode_image
