"""GeoCLIP's location encoder (Vivanco Cepeda et al., arXiv:2309.16020), written anew."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec

SCALES = 3
_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+))"
_PLACE = re.compile(rf"\s*{_NUMBER}\s*[,;\s]\s*{_NUMBER}\s*")


class Features(nn.Module):
    """Cosines and sines of 256 fixed projections; the finest turn 1,000 times between two points of
    the earth, so that they are always computed in float32."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(count, 2), requires_grad=False)

    def forward(self, points: Tensor) -> Tensor:
        angles = 2 * math.pi * points @ self.b.T
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Scale(nn.Module):
    """An MLP over random Fourier features of one bandwidth."""

    def __init__(self, features: int, width: int, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Features(features)]
        for before in (2 * features, width, width):
            layers += [nn.Linear(before, width), nn.ReLU()]
        self.capsule = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(width, dim))

    def forward(self, points: Tensor) -> Tensor:
        features = self.capsule[0](points).to(self.head[0].weight.dtype)
        return self.head(self.capsule[1:](features))


class Network(nn.Module):
    """Points of the Equal Earth projection `[n, 2]` → `[n, 512]`: the sum over three scales."""

    def __init__(self, features: int = 256, width: int = 1024, dim: int = 512) -> None:
        super().__init__()
        for number in range(SCALES):
            self.add_module(f"LocEnc{number}", Scale(features, width, dim))

    def forward(self, points: Tensor) -> Tensor:
        return torch.stack([scale(points) for scale in self.children()]).sum(dim=0)


class GeoClipLocation(Encoder):
    """Places as latitude and longitude in degrees, such as `48.8566, 2.3522`."""

    def __init__(
        self, spec: EncoderSpec, network: Network, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec = spec
        self.device = device
        self.model = network.requires_grad_(False).eval().to(device)
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged weights, or with `geoclip-location@PATH` the user's, in the same form.

        Raises:
            ArtefactError: weights that are missing, changed or do not fit.
        """
        path = Path(spec.weights) if spec.local else packaged_weights(spec)
        with torch.device("meta"):
            network = Network()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict(state, assign=True)
        except Exception as error:  # unreadable, unsafe, or of another network
            raise ArtefactError(f"{path} does not contain GeoCLIP's weights: {error}") from error
        return cls(spec, network, device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A narrow network with random weights."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(0)
            network = Network(features=8, width=16, dim=16)
            for module in network.modules():
                if isinstance(module, Features):
                    module.b.normal_()
        spec = replace(spec, dim=16, weights="", sha256="", revision="", parameters=None)
        return cls(spec, network, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[str]) -> Tensor:
        """float64 `[n, 2]` of the Equal Earth projection.

        Raises ValueError if one is not a place on the earth.
        """
        return projected(torch.tensor([self._degrees(item) for item in items]).reshape(-1, 2))

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32 `[n, 512]`."""
        if view not in self.spec.views:
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        return self.model(batch.to(self.device, torch.float32)).float()

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[str]:
        """Places in all quarters of the earth, the poles and the date line among them."""
        return [
            "48.8566, 2.3522",
            "-33.87;151.21",
            "0 0",
            "90, 0",
            "-90.0, 12",
            "12.5,-179.99",
            "+.5, 179.99",
            "35.68, 139.69",
        ]

    def _degrees(self, item: str) -> list[float]:
        if not isinstance(item, str):
            raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")
        found = _PLACE.fullmatch(item)
        if not found:
            raise ValueError(f"not a place, such as '48.8566, 2.3522': '{item[:80]}'")
        latitude, longitude = float(found[1]), float(found[2])
        if abs(latitude) > 90 or abs(longitude) > 180:
            raise ValueError(
                f"no place on the earth: '{item[:80]}' (latitude first, from -90 to 90, then "
                "longitude, from -180 to 180)"
            )
        return [latitude, longitude]


def projected(degrees: Tensor) -> Tensor:
    """Latitude and longitude `[n, 2]` in the Equal Earth projection (Šavrič, Patterson and Jenny,
    2018), scaled so that a half turn of the equator is 1: float64 `[n, 2]`."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    latitude, longitude = degrees.double().deg2rad().unbind(1)
    t = torch.asin(math.sqrt(3) / 2 * latitude.sin())
    slope = 9 * a4 * t**8 + 7 * a3 * t**6 + 3 * a2 * t**2 + a1
    x = 2 * math.sqrt(3) * longitude * t.cos() / (3 * slope)
    y = a4 * t**9 + a3 * t**7 + a2 * t**3 + a1 * t
    return torch.stack([x, y], dim=1) * 66.50336 / 180
