"""`DinoEncoder`: the DINO family through transformers, with the preprocessing of its own folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from fusemix_hf.loading import frozen, load_model, load_processor
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PretrainedConfig,
    PreTrainedModel,
)

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec
from fusemix_dinov2 import PRESETS

PATCHES = 4
"""How many patches a side of a miniature's image has."""


@dataclass(frozen=True)
class Architecture:
    """One of the three: its classes in transformers, its patch, and how its pictures are prepared.

    `backend` is the image processor's. DINOv2 was trained on pictures that Pillow had resized,
    DINOv3 on tensors that torchvision had: that is no choice of the installation's, because the two
    give different pixels, and so different latents.
    """

    model: type[PreTrainedModel]
    config: Callable[..., PretrainedConfig]
    processor: str
    backend: str
    patch: int
    tiny: Mapping[str, Any] = field(default_factory=dict)


ARCHITECTURES = {
    "dinov2": Architecture(Dinov2Model, Dinov2Config, "BitImageProcessor", "pil", 14),
    "dinov2_with_registers": Architecture(
        Dinov2WithRegistersModel, Dinov2WithRegistersConfig, "BitImageProcessor", "pil", 14
    ),
    "dinov3_vit": Architecture(
        DINOv3ViTModel,
        DINOv3ViTConfig,
        "DINOv3ViTImageProcessor",
        "torchvision",
        16,
        {"intermediate_size": 64, "num_register_tokens": 4},
    ),
}
"""By transformers' `model_type`."""


class DinoEncoder(Encoder):
    """Images through a DINO vision transformer; `spec.options["architecture"]` says which.

    `pooled` is the class token after the last norm, as the field uses it; `pooled-cls-mean` that
    token beside the mean of the patch tokens. Register tokens are in no view.
    """

    on_device = True

    def __init__(
        self,
        spec: EncoderSpec,
        model: PreTrainedModel,
        processor: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self.device, self.dtype = device, dtype
        self.processor = processor
        self.patch: int = model.config.patch_size
        self.blocks: int = model.config.num_hidden_layers
        self.prefix = 1 + getattr(model.config, "num_register_tokens", 0)
        self.model = frozen(model, device, dtype)
        on_gpu = device.type == "cuda"
        self.table = PixelTable.of(self._pixels, self._bytes, device) if on_gpu else None

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model and the image processor at `spec.weights`.

        Raises ArtefactError if they can't be had, or are those of another architecture.
        """
        kind = ARCHITECTURES[spec.options["architecture"]]
        check_config(spec, load_processor(AutoConfig, spec))
        model = load_model(kind.model, spec, dtype)
        processor = load_processor(AutoImageProcessor, spec, backend=kind.backend)
        found = type(processor).__name__.removesuffix("Pil"), processor.backend
        if found != (kind.processor, kind.backend):
            raise ArtefactError(
                f"{spec.weights} prepares pictures by a {' of '.join(found)}, {spec.name} by a "
                f"{kind.processor} of {kind.backend}.",
                "Copy preprocessor_config.json from the repository of the model too.",
            )
        return cls(spec, model, processor, device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """The same architecture, three blocks 32 wide on pictures of 4 by 4 patches, random."""
        kind = ARCHITECTURES[spec.options["architecture"]]
        side = PATCHES * kind.patch
        config = kind.config(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=side,
            patch_size=kind.patch,
            initializer_range=0.2,
            **kind.tiny,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = kind.model(config)
        spec = replace(
            spec, dim=32, image_size=side, weights="", revision="", local=False, parameters=None
        )
        return cls(spec, model, tiny_processor(kind, side), torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[Image.Image]) -> Tensor:
        """PIL images as float32 `[n, 3, h, w]`, each by the model's own image processor; for a GPU
        as uint8 if `encode` can normalise them there to the same numbers."""
        for item in items:
            if not isinstance(item, Image.Image):
                raise TypeError(f"{self.spec.name} takes PIL images, not {type(item).__name__}")
        if not items:
            return torch.empty(0, 3, *self.image_size)
        # One by one: as a list, pictures of one size would be resized as a batch.
        prepare = self._pixels if self.table is None else self._bytes
        return torch.stack([prepare(item.convert("RGB")) for item in items])

    def _pixels(self, image: Image.Image, **options: bool) -> Tensor:
        """`[3, h, w]`, as the processor prepares an image."""
        return self.processor(image, return_tensors="pt", **options)["pixel_values"][0]

    def _bytes(self, image: Image.Image) -> Tensor:
        """The same, neither scaled nor normalised."""
        return self._pixels(image, do_rescale=False, do_normalize=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what `collate` makes of a picture."""
        last = self.processor.crop_size if self.processor.do_center_crop else self.processor.size
        return last["height"], last["width"]

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32 latents of a batch `[n, 3, h, w]`; d is the width of the model, p its patches.

        `pooled [n, d]`, `pooled-cls-mean [n, 2d]`, `tokens [n, p, d]` row by row from the top left,
        `grid [n, h/patch, w/patch, d]`, `layers [n, blocks, d]` the class token after each block,
        the last one normed, and so equal to `pooled`. ConfigError for any other view.
        """
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if not len(batch):  # transformers can't
            return self.encode(batch.new_zeros(1, *batch.shape[1:]), view)[:0]
        pixels = batch.to(self.device)
        if pixels.dtype == torch.uint8:
            assert self.table is not None  # `collate` gives bytes for it only
            pixels = self.table(pixels)
        pixels = pixels.to(self.dtype)
        output = self.model(pixels, output_hidden_states=view == "layers")
        if view == "pooled":
            return output.pooler_output.float()
        if view == "layers":
            inner = [states[:, 0] for states in output.hidden_states[1 : self.blocks]]
            return torch.stack([*inner, output.pooler_output], dim=1).float()
        tokens = output.last_hidden_state[:, self.prefix :].float()
        if view == "pooled-cls-mean":
            return torch.cat([output.pooler_output.float(), tokens.mean(dim=1)], dim=1)
        if view == "grid":
            height, width = (side // self.patch for side in batch.shape[-2:])
            return tokens.unflatten(1, (height, width))
        return tokens


def check_config(spec: EncoderSpec, config: PretrainedConfig) -> None:
    """Raise ArtefactError unless the config is of the architecture and the width of the spec."""
    wanted = spec.options["architecture"]
    found, dim = config.model_type, getattr(config, "hidden_size", None)
    if (found, dim) == (wanted, spec.dim):
        return
    fitting = [p.name for p in PRESETS if (p.options["architecture"], p.dim) == (found, dim)]
    raise ArtefactError(
        f"{spec.weights} contains a {found} {dim} wide; "
        f"{spec.name.partition('@')[0]} is a {wanted} "
        f"{spec.dim} wide.",
        f"Use {fitting[0]}@{spec.weights}"
        if fitting
        else "No preset has this shape; hf:NAME@FOLDER loads any transformers model.",
    )


def tiny_processor(kind: Architecture, side: int) -> Any:
    """The image processor of an architecture for pictures of `side` pixels."""
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    square = {"height": side, "width": side}
    if kind.backend == "pil":
        return BitImageProcessorPil(
            size={"shortest_edge": side + 8}, crop_size=square, image_mean=mean, image_std=std
        )
    from transformers import DINOv3ViTImageProcessor  # needs torchvision

    return DINOv3ViTImageProcessor(size=square, image_mean=mean, image_std=std)
