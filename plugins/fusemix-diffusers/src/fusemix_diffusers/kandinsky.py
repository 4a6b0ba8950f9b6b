"""`KandinskyGenerator`: a `KandinskyV22Pipeline`, which an image embedding conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from fusemix_core.specs import GeneratorSpec
from fusemix_diffusers.base import DiffusersGenerator, generators, images_of, noise
from fusemix_diffusers.files import Files, located, read_folder
from fusemix_diffusers.light import loading
from fusemix_diffusers.light.supported import movq_fault, scheduler_fault, unet_fault
from fusemix_diffusers.tiny import KANDINSKY


class KandinskyGenerator(DiffusersGenerator):
    """Kandinsky 2.2, or any small model in its format.

    If the networks are among those that `fusemix_diffusers.light` has, diffusers is not imported:
    the same images, seconds earlier. The condition "nothing" is the zero vector.

    Args:
        spec: As resolved.
        device: Where it draws.
        light: The plain networks, or None.
        pipeline: diffusers' own pipeline, if there are no plain networks.
        scale: Pixels a side per latent.
    """

    def __init__(
        self,
        spec: GeneratorSpec,
        device: torch.device,
        *,
        light: loading.Light | None = None,
        pipeline: Any = None,
        scale: int,
    ) -> None:
        super().__init__(spec, device)
        self.light, self.pipeline, self.scale = light, pipeline, scale
        self.multiple = scale**2

    @classmethod
    def load(cls, spec: GeneratorSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The pipeline in `spec.weights`: a hub's, a folder, or a folder inside a package."""
        folder = located(spec)
        files = read_folder(folder, spec.name)
        if cls.fault(files):
            from fusemix_diffusers.pipelines import load_pipeline

            pipeline = load_pipeline(folder, files, spec.name, device, dtype)
            return cls(spec, device, pipeline=pipeline, scale=pipeline.movq_scale_factor)
        light = loading.load(folder, files.configs, device, dtype)
        return cls(spec, device, light=light, scale=light.movq.scale)

    @staticmethod
    def fault(files: Files) -> str:
        """The reason why the plain networks can't draw for these; empty if they can."""
        if missing := {"unet", "movq", "scheduler"} - files.components.keys():
            return f"there is no {min(missing)}"
        return (
            unet_fault(files.configs["unet"])
            or movq_fault(files.configs["movq"])
            or scheduler_fault(files.configs["scheduler"])
        )

    @classmethod
    def tiny(cls, spec: GeneratorSpec) -> Self:
        """Random networks of two blocks each, for the width of the spec."""
        dim = spec.dim or 16
        unet = {**KANDINSKY["unet"], "encoder_hid_dim": dim}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            light = loading.build(unet, KANDINSKY["movq"], KANDINSKY["scheduler"])
        spec = replace(spec, dim=dim, size=16, weights="", sha256="", revision="")
        spec = replace(spec, options={**spec.options, "steps": 3, "guidance": 4.0})
        return cls(spec, torch.device("cpu"), light=light, scale=light.movq.scale)

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        size, steps, scale = settings["size"], settings["steps"], float(settings["guidance"])
        away = torch.zeros_like(condition) if negative is None else negative
        if self.light is None:
            unet = self.pipeline.unet
            found = self.pipeline(
                image_embeds=condition.to(unet.dtype),
                negative_image_embeds=away.to(unet.dtype),
                height=size,
                width=size,
                num_inference_steps=steps,
                guidance_scale=scale,
                generator=generators(seeds),
            )
            return found.images
        unet = self.light.unet
        rows, away = (x.to(unet.conv_in.weight.dtype) for x in (condition, away))
        side = size // self.scale
        start = noise((unet.channels, side, side), seeds, rows)
        return images_of(self.light.sample(rows, away, start, steps, scale))
