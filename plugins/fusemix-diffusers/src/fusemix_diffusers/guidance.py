"""`GuidanceGenerator`: any Stable Diffusion, steered by the score of a fused model.

The gradient of the score changes the predicted noise of each step (Dhariwal and Nichol,
arXiv:2105.05233, algorithm 2), as GLIDE's CLIP guidance does, and FuseMix with a fused embedding in
CLIP's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.generator import Score
from fusemix_core.interfaces import Padded
from fusemix_diffusers.piped import PipedGenerator


class GuidanceGenerator(PipedGenerator):
    """Each step: decode the image as predicted so far, score it, and move the noise prediction up
    the gradient. `strength` multiplies the gradient of the cosine; a `prompt` helps.

    The gradient flows through the VAE and the fused model, not through the U-Net. The scheduler is
    DDIM with the pipeline's own noise schedule.
    """

    def prepare(self, folder: Path) -> None:
        """Replace the scheduler by DDIM."""
        self.pipeline.scheduler = DDIMScheduler.from_config(
            self.pipeline.scheduler.config, clip_sample=False
        )

    def generate(
        self,
        condition: Tensor | Padded,
        *,
        seeds: Sequence[int],
        negative: Tensor | Padded | None = None,
        score: Score | None = None,
        **options: Any,
    ) -> list[Image.Image]:
        """One image per row; `score` compares image i with condition i. See `Generator.generate`.

        Rows are drawn one after another: the gradient needs the memory.
        """
        if score is None:
            raise ConfigError(
                f"'{self.spec.name}' is steered by the score of a fused model, and got none.",
                "Name a fused model that has images: fusemix generate MODEL …",
            )
        if negative is not None:
            raise ConfigError(
                f"'{self.spec.name}' takes no negative condition.", "Leave --not out."
            )
        settings = self.settings(options)
        with _steered(self.pipeline, score, float(settings["strength"])):
            return self.run(seeds, settings, prompt=self.prompts(settings, len(seeds)))

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        """Not used: `generate` draws all rows."""
        raise NotImplementedError


@contextmanager
def _steered(pipeline: Any, score: Score, strength: float) -> Iterator[None]:
    """Inside, the pipeline's scheduler takes each step with steered noise."""
    scheduler = pipeline.scheduler
    own: Callable[..., Any] = scheduler.step

    def step(output: Tensor, time: Any, sample: Tensor, **more: Any) -> Any:
        steered = steer(output, int(time), sample, scheduler, pipeline.vae, score, strength)
        return own(steered, time, sample, **more)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step


def steer(
    output: Tensor,
    time: int,
    sample: Tensor,
    scheduler: Any,
    vae: Any,
    score: Score,
    strength: float,
) -> Tensor:
    """The network's output, changed so that the image of the next step scores higher.

    Args:
        output: of the network, `[n, c, h, w]`: noise, velocity or image, as the scheduler says.
        time: of the step.
        sample: noisy latents, `[n, c, h, w]`.
        scheduler: with `alphas_cumprod` and `config.prediction_type`.
        vae: decodes latents.
        score: of images from 0 to 1.
        strength: of the gradient.
    """
    alpha = scheduler.alphas_cumprod[time].to(sample.device, sample.dtype)
    signal, noisy = alpha**0.5, (1 - alpha) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        noise = output
    elif kind == "v_prediction":
        noise = signal * output + noisy * sample
    else:
        noise = (sample - signal * output) / noisy
    with torch.enable_grad():
        latents = sample.detach().requires_grad_()
        clean = (latents - noisy * noise.detach()) / signal
        image = vae.decode(clean / vae.config.scaling_factor, return_dict=False)[0]
        total = score((image * 0.5 + 0.5).clamp(0, 1)).sum()
        (gradient,) = torch.autograd.grad(total, latents)
    noise = noise - strength * noisy * gradient
    if kind == "epsilon":
        return noise
    clean = (sample - noisy * noise) / signal
    return clean if kind == "sample" else signal * noise - noisy * clean
