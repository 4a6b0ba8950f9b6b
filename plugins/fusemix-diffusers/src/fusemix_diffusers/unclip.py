"""`UnclipGenerator`: a `StableUnCLIPImg2ImgPipeline`, which an image embedding conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_diffusers.piped import PipedGenerator


class UnclipGenerator(PipedGenerator):
    """Stable unCLIP: the embedding with a little noise, and a prompt if there is one.

    `noise_level` (0 to 999) blurs the embedding: more variety, and more tolerance for an embedding
    that is not quite an image's. The pipeline's null condition is its own: zeros after the noise.
    """

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        if negative is not None:
            raise ConfigError(
                f"'{self.spec.name}' takes no negative condition.",
                "Leave --not out, or use an IP-Adapter (diffusers:NAME#ip@FOLDER).",
            )
        level = settings["noise_level"]
        most = self.pipeline.image_noising_scheduler.config.num_train_timesteps
        if not isinstance(level, int) or not 0 <= level < most:
            raise ConfigError(f"The noise level is {level}.", f"Give 0 to {most - 1}.")
        return self.run(
            seeds,
            settings,
            image_embeds=condition.to(self.pipeline.unet.dtype),
            prompt=self.prompts(settings, len(seeds)),
            noise_level=level,
        )
