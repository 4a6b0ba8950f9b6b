"""`IpAdapterGenerator`: Stable Diffusion or SDXL with an IP-Adapter (arXiv:2308.06721)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_diffusers.adapter_file import adapter_file
from fusemix_diffusers.piped import PipedGenerator
from fusemix_diffusers.pipelines import quiet

_PARTS = ("image_proj", "ip_adapter")


class IpAdapterGenerator(PipedGenerator):
    """An image embedding beside a prompt. `scale` weighs the embedding, 1 being full.

    The adapter is the safetensors file in the folder `ip_adapter` of the pipeline's folder.
    """

    def prepare(self, folder: Path) -> None:
        """Load the adapter into the U-Net. Raises ArtefactError if it does not fit."""
        file = adapter_file(folder)
        try:
            tensors = load_file(file)
            parts = {
                part: {
                    name.removeprefix(f"{part}."): value.to(self.pipeline.unet.dtype)
                    for name, value in tensors.items()
                    if name.startswith(f"{part}.")
                }
                for part in _PARTS
            }
            with torch.random.fork_rng(devices=[]), quiet():
                self.pipeline.load_ip_adapter(
                    parts, subfolder="", weight_name="", image_encoder_folder=None
                )
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            said = str(error).strip().splitlines()[0][:300]
            raise ArtefactError(
                f"{file} does not fit the pipeline of {self.spec.name}: {said}",
                "Take the adapter that was trained for this pipeline.",
            ) from error
        self.pipeline.unet.to(self.device)

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        scale = settings["scale"]
        if not isinstance(scale, int | float) or scale < 0:
            raise ConfigError(f"The scale of the adapter is {scale!r}.", "Give 0 to 1.")
        self.pipeline.set_ip_adapter_scale(float(scale))
        rows = condition
        if settings["guidance"] > 1:  # what to keep away from comes first
            away = torch.zeros_like(condition) if negative is None else negative
            rows = torch.cat([away, condition])
        embeddings = [rows[:, None].to(self.pipeline.unet.dtype)]
        # diffusers itself would give every prompt the embeddings of all rows.
        self.pipeline.prepare_ip_adapter_image_embeds = lambda *_, **__: embeddings
        try:
            prompts = self.prompts(settings, len(seeds))
            return self.run(seeds, settings, ip_adapter_image_embeds=embeddings, prompt=prompts)
        finally:
            del self.pipeline.prepare_ip_adapter_image_embeds
