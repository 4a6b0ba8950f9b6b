"""Latents of coordinates by the location encoder of GeoCLIP (arXiv 2309.16020, weights under MIT).

    python -m benchmarks.sets.coordinates places.jsonl location_encoder_weights.pth OUT.npy

The weights are in the package geoclip: `geoclip/model/weights/location_encoder_weights.pth`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, relu

DIM = 512
BATCH = 4096

EQUAL_EARTH = (1.340264, -0.081106, 0.000893, 0.003796)
"""The polynomial of the Equal Earth projection (Šavrič, Patterson & Jenny, 2018)."""
HALF_WIDTH = 66.50336
"""What the model was trained on: projected degrees, scaled by this over 180."""


def projected(degrees: Tensor) -> Tensor:
    """Latitude and longitude in degrees `[n, 2]` → Equal Earth x, y `[n, 2]`."""
    a, b, c, d = EQUAL_EARTH
    latitude, longitude = degrees.deg2rad().unbind(dim=1)
    t = torch.asin(math.sqrt(3) / 2 * torch.sin(latitude))
    slope = 9 * d * t**8 + 7 * c * t**6 + 3 * b * t**2 + a
    x = 2 * math.sqrt(3) * longitude * torch.cos(t) / (3 * slope)
    y = d * t**9 + c * t**7 + b * t**3 + a * t
    return torch.stack([x, y], dim=1) * HALF_WIDTH / 180


@torch.inference_mode()
def location_latents(degrees: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """float32 `[n, 512]` of degrees `[n, 2]`: a sum over scales of an MLP of Fourier features."""
    places = projected(degrees)
    total = torch.zeros(len(places), DIM)
    scales = sorted({name.partition(".")[0] for name in weights})
    for scale in scales:
        angles = 2 * math.pi * places @ weights[f"{scale}.capsule.0.b"].T  # [n, 256]
        hidden = torch.cat([angles.cos(), angles.sin()], dim=1)
        for layer in (1, 3, 5):
            at = f"{scale}.capsule.{layer}"
            hidden = relu(linear(hidden, weights[f"{at}.weight"], weights[f"{at}.bias"]))
        total += linear(hidden, weights[f"{scale}.head.0.weight"], weights[f"{scale}.head.0.bias"])
    return total


def write_latents(source: Path, weights: Path, out: Path) -> None:
    """float16 `[n, 512]` of the places in a file of lines, in their order."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    degrees = torch.tensor([[row["lat"], row["lon"]] for row in rows], dtype=torch.float64)
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    found = [location_latents(part.float(), tensors).half() for part in degrees.split(BATCH)]
    np.save(out, torch.cat(found).numpy())


if __name__ == "__main__":
    write_latents(*map(Path, sys.argv[1:4]))
