"""`PipedGenerator`: bridges that run one of diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from fusemix_core.errors import ConfigError
from fusemix_core.specs import GeneratorSpec
from fusemix_diffusers.base import DiffusersGenerator, generators
from fusemix_diffusers.files import located, read_folder
from fusemix_diffusers.pipelines import load_pipeline


class PipedGenerator(DiffusersGenerator):
    """A pipeline of diffusers with a VAE.

    Args:
        spec: As resolved.
        pipeline: On the device, in eval mode.
        device: Where it draws.
    """

    def __init__(self, spec: GeneratorSpec, pipeline: Any, device: torch.device) -> None:
        super().__init__(spec, device)
        self.pipeline = pipeline
        self.multiple = pipeline.vae_scale_factor

    @classmethod
    def load(cls, spec: GeneratorSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The pipeline in `spec.weights`: a hub's, a folder, or a folder inside a package."""
        folder = located(spec)
        files = read_folder(folder, spec.name)
        pipeline = load_pipeline(folder, files, spec.name, device, dtype)
        generator = cls(spec, pipeline, device)
        generator.prepare(folder)
        return generator

    def prepare(self, folder: Path) -> None:
        """Add what else the bridge needs from the pipeline's folder."""

    def run(
        self, seeds: Sequence[int], settings: Mapping[str, Any], **inputs: Any
    ) -> list[Image.Image]:
        """The pipeline's images for its own inputs, one per seed."""
        found = self.pipeline(
            height=settings["size"],
            width=settings["size"],
            num_inference_steps=settings["steps"],
            guidance_scale=float(settings["guidance"]),
            generator=generators(seeds),
            **inputs,
        )
        return [image.convert("RGB") for image in found.images]

    def prompts(self, settings: Mapping[str, Any], count: int) -> list[str]:
        """The prompt beside the condition, once per row. Raises ConfigError if it isn't a text."""
        prompt = settings.get("prompt", "")
        if not isinstance(prompt, str):
            raise ConfigError(f"The prompt is {prompt!r}, not a text.", '--set prompt="a drawing"')
        return [prompt] * count
