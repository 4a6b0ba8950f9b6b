"""Builds the plain networks from a folder that diffusers wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fusemix_core.errors import ArtefactError
from fusemix_diffusers.light.ddim import Ddim
from fusemix_diffusers.light.movq import PARTS, Movq
from fusemix_diffusers.light.unet import UNet

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Light:
    """The parts of a Kandinsky 2.2 pipeline, in eval mode on one device."""

    unet: UNet
    movq: Movq
    ddim: Ddim

    @torch.inference_mode()
    def sample(
        self, condition: Tensor, null: Tensor, noise: Tensor, steps: int, scale: float
    ) -> Tensor:
        """float32 `[n, 3, h, w]` on the CPU, from 0 to 1.

        Args:
            condition: `[n, d]`.
            null: `[n, d]`, from which guidance leads away.
            noise: of the first step, `[n, c, h, w]`.
            steps: of the sampler.
            scale: of the guidance; at most 1 turns it off.
        """
        latents, guided = noise, scale > 1
        both = torch.cat([null, condition]) if guided else condition
        for time in self.ddim.times(steps):
            step = torch.tensor(time, device=noise.device)
            output = self.unet(torch.cat([latents] * 2) if guided else latents, step, both)
            output = output[:, : self.unet.channels]  # what follows is the variance
            if guided:
                away, towards = output.chunk(2)
                output = away + scale * (towards - away)
            latents = self.ddim.step(output, time, steps, latents)
        return (self.movq(latents) * 0.5 + 0.5).clamp(0, 1).float().cpu()


def build(unet: Mapping[str, Any], movq: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Light:
    """The parts of three configs, with random weights."""
    return Light(UNet(unet).eval(), Movq(movq).eval(), Ddim(scheduler))


def load(
    folder: Path,
    configs: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    dtype: torch.dtype,
) -> Light:
    """The parts in a folder, by its configs (`unet`, `movq`, `scheduler`).

    Raises:
        ArtefactError: A file is missing or damaged, or has not the tensors of its config.
    """

    def made(name: str, kind: Callable[[Mapping[str, Any]], Any], parts: tuple[str, ...]) -> Any:
        with torch.device("meta"):
            module = kind(configs[name])
        _fill(module, folder / name / WEIGHTS, parts)
        return module.requires_grad_(False).eval().to(device=device, dtype=dtype)

    return Light(made("unet", UNet, ("",)), made("movq", Movq, PARTS), Ddim(configs["scheduler"]))


def _fill(module: nn.Module, file: Path, parts: tuple[str, ...]) -> None:
    hint = "Fetch or copy the folder again. Only safetensors are read."
    try:
        tensors = {k: v for k, v in load_file(file).items() if k.startswith(parts)}
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{file} can't be read: {error}", hint) from error
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if wrong := sorted(n for n in wanted.keys() | found if wanted.get(n) != found.get(n)):
        raise ArtefactError(
            f"{file} does not fit its config.json: {len(wrong)} tensors are missing, unknown or "
            f"of another shape, the first {wrong[0]}.",
            hint,
        )
    module.load_state_dict(tensors, assign=True)
