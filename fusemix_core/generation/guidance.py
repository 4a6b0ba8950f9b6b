"""`score_of`: how well images fit given embeddings, by a fused model, with a gradient.

An encoder prepares PIL images, which no gradient passes. What it does to them is found out once, by
probes: the part of the image that it looks at, the size, and the scale and shift of each channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.generator import Score
from fusemix_core.interfaces import Encoder, input_of
from fusemix_core.padded import as_rows

_SIDE = 256
_SAME = 0.99
"""The least cosine of the latents of a probe by both ways."""


def score_of(model: FusedModel, rows: Tensor, modality: str = "image") -> Score:
    """The cosine of image i and embedding i in the space of a fused model, with a gradient.

    Args:
        model: With a modality of images, whose encoder has a `network`.
        rows: Unit-norm embeddings of any modality of the model, `[n, d]`.
        modality: Of the images.

    Returns:
        A function of float `[n, 3, h, w]` in 0 to 1, which gives `[n]`.

    Raises:
        ConfigError: The encoder prepares images in a way that has no gradient, or has no `network`.

    Example:
        score = score_of(model, model.encode("audio", ["bark.wav"]))
        (gradient,) = torch.autograd.grad(score(images).sum(), images)
    """
    encoder = model.encoder(modality).load()
    adapter, view = model.adapters[modality], model.encoders[modality].view
    latents = _differentiable(encoder, view)
    targets = rows.to(model.device, torch.float32)

    def score(images: Tensor) -> Tensor:
        taken = input_of(adapter, latents(images.to(model.device)))
        found = normalize(adapter(taken.to(torch.float32)), dim=1)
        return (found * targets).sum(dim=1)

    return score


@dataclass(frozen=True)
class Preparing:
    """An encoder's preparation of an image for its network: crop, resize, scale and shift.

    Attributes:
        height, width: of the network's input.
        share: of each side of the image that is looked at, around the middle.
        scale, shift: of each channel, `[3, 1, 1]`.
    """

    height: int
    width: int
    share: float
    scale: Tensor
    shift: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """float `[n, 3, height, width]` as the network takes them, of `[n, 3, h, w]` in 0 to 1."""
        whole = [round(side / self.share) for side in (self.height, self.width)]
        resized = interpolate(
            images, size=whole, mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
        top, left = (whole[0] - self.height) // 2, (whole[1] - self.width) // 2
        part = resized[..., top : top + self.height, left : left + self.width]
        return part * self.scale.to(part) + self.shift.to(part)

    @classmethod
    def found(cls, prepared: Tensor) -> Preparing:
        """What was done to the four images of `_probes`, whose prepared forms are `[4, 3, h, w]`.

        Raises:
            ValueError: It is not of this form.
        """
        black, white, ramp = (image.double() for image in prepared[:3])
        if (black - black[:, :1, :1]).abs().max() > 1e-3:
            raise ValueError("a black image is not black all over")
        shift = black[:, :1, :1]
        scale = (white - black)[:, :1, :1]
        if scale.abs().min() < 1e-6:
            raise ValueError("black and white are the same")
        seen = (ramp - shift) / scale
        across, down = seen[0, 0], seen[1, :, 0]
        shares = []
        for line in (across, down):
            step = (line[-1] - line[0]).item() / (len(line) - 1)
            shares.append(step * len(line) * (_SIDE - 1) / _SIDE)
        middles = (across[[0, -1]].mean().item(), down[[0, -1]].mean().item())
        aside = max(abs(middle - 0.5) for middle in middles)
        if aside > 0.02 or abs(shares[0] - shares[1]) > 0.02 or not 0.3 < shares[0] < 1.05:
            raise ValueError("it does not look at the middle of an image")
        height, width = prepared.shape[2:]
        return cls(height, width, min(1.0, shares[0]), scale.float(), shift.float())


def _differentiable(encoder: Encoder, view: str) -> Callable[[Tensor], Tensor]:
    """From images in 0 to 1 to latents `[n, d]`, with a gradient; see `score_of`."""
    name = encoder.spec.name
    network = encoder.network(view)
    if network is None:
        raise ConfigError(
            f"The images of '{name}', view '{view}', can't guide a generator: it has no "
            "`network`, through which a gradient could flow.",
            "Use a model whose image encoder is one of fusemix-timm or fusemix-hf.",
        )
    probes = _probes()
    try:
        inputs = _inputs(encoder, view, probes)
        (key,) = inputs
        prepare = Preparing.found(inputs[key].float().cpu())
        pixels = torch.stack([_pixels(image) for image in probes])
        dtype, device = inputs[key].dtype, inputs[key].device

        def latents(images: Tensor) -> Tensor:
            prepared = prepare(images.to(device)).to(dtype)
            return as_rows(network.module(**{key: prepared})).float()

        with torch.no_grad():
            same = torch.cosine_similarity(
                latents(pixels)[3:], as_rows(encoder.encode(encoder.collate(probes), view))[3:]
            )
        if same.min() < _SAME:
            raise ValueError("a photograph has other latents by this way")
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"The images of '{name}' can't guide a generator: what it does to an image before its "
            f"network can't be followed ({error}).",
            "Use a model whose image encoder is one of fusemix-timm or fusemix-hf.",
        ) from error
    return latents


class _Caught(Exception):
    """The inputs have reached the network."""


def _inputs(encoder: Encoder, view: str, images: list[Image.Image]) -> dict[str, Tensor]:
    """The inputs that `encode` hands to the network for these images."""
    caught: dict[str, Tensor] = {}

    def catch(_: str, inputs: dict[str, Tensor]) -> Any:
        caught.update(inputs)
        raise _Caught

    before, encoder.runtime = encoder.runtime, catch
    try:
        encoder.encode(encoder.collate(images), view)
    except _Caught:
        return {key: value.clone() for key, value in caught.items()}
    finally:
        encoder.runtime = before
    raise ValueError("its network is not reached by `compute`")


def _probes() -> list[Image.Image]:
    """Black, white, a ramp across in red and down in green, and something like a photograph."""
    side = np.arange(_SIDE, dtype=np.uint8)
    ramp = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = side[None], side[:, None]
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    photograph = Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    plain = [Image.new("RGB", (_SIDE, _SIDE), colour) for colour in ("black", "white")]
    return [*plain, Image.fromarray(ramp), photograph]


def _pixels(image: Image.Image) -> Tensor:
    """float `[3, h, w]` in 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
