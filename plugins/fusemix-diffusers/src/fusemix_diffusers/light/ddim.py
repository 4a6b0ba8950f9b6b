"""The deterministic DDIM sampler (arXiv:2010.02502), as a pipeline's scheduler config sets it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEFAULTS: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "clip_sample_range": 1.0,
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
"""diffusers' defaults of the settings that a config may leave out."""


class Ddim:
    """`DDIMScheduler` with eta 0.

    Args:
        config: what `scheduler_config.json` contains; see `supported.scheduler_fault`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = {**DEFAULTS, **config}
        betas = _betas(self.config)
        if self.config["rescale_betas_zero_snr"]:
            betas = _to_pure_noise(betas)
        self.kept = torch.cumprod(1 - betas, dim=0)  # share of the signal at each time step
        self.last = torch.tensor(1.0) if self.config["set_alpha_to_one"] else self.kept[0]

    def times(self, steps: int) -> list[int]:
        """The time steps of `steps` steps, from noise to image."""
        total, spacing = self.config["num_train_timesteps"], self.config["timestep_spacing"]
        if spacing == "linspace":
            return np.linspace(0, total - 1, steps).round()[::-1].astype(int).tolist()
        if spacing == "trailing":
            return (np.round(np.arange(total, 0, -total / steps)).astype(int) - 1).tolist()
        ratio, first = total // steps, self.config["steps_offset"]
        return (np.arange(steps)[::-1] * ratio + first).tolist()

    def step(self, output: Tensor, time: int, steps: int, x: Tensor) -> Tensor:
        """The latents one step nearer to an image.

        Args:
            output: of the network, `[n, c, h, w]`.
            time: of the step, one of `times(steps)`.
            steps: how many there are.
            x: noisy latents, `[n, c, h, w]`.
        """
        before = time - self.config["num_train_timesteps"] // steps
        alpha, kind = self.kept[time], self.config["prediction_type"]
        signal, noisy = alpha**0.5, (1 - alpha) ** 0.5
        if kind == "epsilon":
            clean, noise = (x - noisy * output) / signal, output
        elif kind == "sample":
            clean, noise = output, (x - signal * output) / noisy
        else:  # v_prediction
            clean, noise = signal * x - noisy * output, signal * output + noisy * x
        if self.config["clip_sample"]:
            limit = self.config["clip_sample_range"]
            clean = clean.clamp(-limit, limit)
        next_alpha = self.kept[before] if before >= 0 else self.last
        return next_alpha**0.5 * clean + (1 - next_alpha) ** 0.5 * noise


def _betas(config: Mapping[str, Any]) -> Tensor:
    count, first, last = (config[k] for k in ("num_train_timesteps", "beta_start", "beta_end"))
    if config["beta_schedule"] == "linear":
        return torch.linspace(first, last, count)
    if config["beta_schedule"] == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, count) ** 2

    def kept(t: float) -> float:  # squaredcos_cap_v2
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    shares = [kept((i + 1) / count) / kept(i / count) for i in range(count)]
    return torch.tensor([min(1 - share, 0.999) for share in shares])


def _to_pure_noise(betas: Tensor) -> Tensor:
    """Betas whose last step has no signal left (arXiv:2305.08891, algorithm 1)."""
    root = torch.cumprod(1 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    kept = ((root - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])
