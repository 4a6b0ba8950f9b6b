"""`TimmEncoder`: a timm model with timm's own preprocessing, and how its weights are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import PretrainedCfg, load_state_dict
from torch import Tensor, nn
from torchvision.transforms import Compose
from torchvision.transforms.functional import pil_to_tensor

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.errors import ArtefactError, ConfigError, ContractError, UnknownNameError
from fusemix_core.interfaces import Encoder, Network
from fusemix_core.specs import EncoderSpec
from fusemix_timm.views import TimmModel, ViewNetwork, view_of, views_of

HUB = "hf-hub:"
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "siglip": ("test_vit3", {}),
    "eva02": (
        "eva02_tiny_patch14_224",
        {"img_size": 56, "embed_dim": 48, "depth": 3, "num_heads": 3},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 2, "embed_dim": 16, "depths": (1, 1, 1, 1)},
    ),
    "vit": ("test_vit", {}),
    "convnext": ("test_convnext", {}),
    "resnet": ("test_resnet", {}),
    "": ("test_efficientnet", {}),
}
"""What a name contains → the miniature of its kind. The first that fits is taken."""


class TimmEncoder(Encoder):
    """Images through the timm model that `spec.options["model"]` names.

    `spec.options["size"]`, if given, is the number of pixels a side that the whole image is scaled
    to, in place of the model's own size and crop: smaller is quicker.

    The pooled latent is timm's `forward_head(..., pre_logits=True)`: what the classifier would get.
    `spec.views` of a loaded encoder are those of the views asked for that its model has.
    """

    on_device = True

    def __init__(
        self, spec: EncoderSpec, model: TimmModel, device: torch.device, dtype: torch.dtype
    ) -> None:
        config = data_config(spec, model)
        self.device, self.dtype = device, dtype
        self.input_size: tuple[int, ...] = tuple(config["input_size"])
        transform = create_transform(**config, is_training=False)
        assert isinstance(transform, Compose)  # of no other kind is one without `separate`
        self.transform = transform
        # channels_last is how oneDNN and cuDNN want their convolutions, CPU and GPU alike.
        self.model = model.requires_grad_(False).eval()
        self.model.to(device, dtype, memory_format=torch.channels_last)
        self.spec = self._found_out(spec)
        self.table = self._table() if device.type == "cuda" else None

    @torch.inference_mode()
    def _found_out(self, spec: EncoderSpec) -> EncoderSpec:
        """The spec with the width and the views that the model shows on an empty picture."""
        blank = torch.zeros(1, *self.input_size, device=self.device, dtype=self.dtype)
        views = views_of(self.model, blank)
        width = view_of(self.model, blank, "pooled").shape[-1]
        return replace(spec, dim=width, views=tuple(v for v in spec.views if v in views))

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model with timm's weights from the hub, or with those at `spec.weights` if local.

        Raises UnknownNameError for a name that timm does not have, ArtefactError for weights that
        can't be had or do not fit.
        """
        name = spec.options["model"]
        check_name(name, local=spec.local)
        path = Path(spec.weights) if spec.local else None
        model = from_path(name, path) if path else from_hub(name, spec.revision)
        return cls(spec, model, device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """One of timm's `test_` models or a shrunken one, of the same kind if there is one;
        random weights."""
        name = spec.options["model"]
        test, shape = next(tiny for kind, tiny in TINY.items() if kind in name)
        overlay = {"input_size": (3, *2 * (shape["img_size"],))} if "img_size" in shape else None
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model: TimmModel = timm.create_model(
                test, pretrained=False, num_classes=0, pretrained_cfg_overlay=overlay, **shape
            )
        size = model.pretrained_cfg["input_size"][-1]
        spec = replace(
            spec, image_size=size, weights="", sha256="", revision="", local=False, parameters=None
        )
        return cls(spec, model, torch.device("cpu"), torch.float32)

    def _table(self) -> PixelTable | None:
        """Of timm's transform after the pixels are those of the model."""
        steps = self.transform.transforms
        names = [type(step).__name__ for step in steps]
        if "MaybeToTensor" not in names:
            return None
        self._resized = Compose(steps[: names.index("MaybeToTensor")])
        return PixelTable.of(self.transform, self._bytes, self.device)

    def _bytes(self, image: Image.Image) -> Tensor:
        """uint8 `[3, h, w]`, neither scaled nor normalised."""
        return pil_to_tensor(self._resized(image))

    def collate(self, items: Sequence[Image.Image]) -> Tensor:
        """PIL images as float32 `[n, 3, h, w]`, by timm's evaluation transform; for a GPU as
        uint8, which `encode` normalises there to the same numbers."""
        for item in items:
            if not isinstance(item, Image.Image):
                raise TypeError(f"{self.spec.name} takes PIL images, not {type(item).__name__}")
        if not items:
            return torch.empty(0, *self.input_size)
        prepare = self.transform if self.table is None else self._bytes
        return torch.stack([prepare(item.convert("RGB")) for item in items])

    def network(self, view: str) -> Network:
        """The model and what makes the view of it."""
        return Network(ViewNetwork(self.model, view))

    def native(self, tool: str, view: str) -> list[nn.Module] | None:
        """For sentence-transformers, the model and its mean over the map: of the view `pooled`, and
        models that pool a map so."""
        pooled = getattr(self.model, "global_pool", None)
        by_mean = getattr(pooled, "pool_type", pooled) == "avg"
        if tool != "sentence-transformers" or view != "pooled" or not by_mean:
            return None
        blank = torch.zeros(1, *self.input_size, device=self.device, dtype=self.dtype)
        with torch.inference_mode():
            if self.model.forward_features(blank).ndim != 4:
                return None
        from fusemix_timm.folder import as_modules

        return as_modules(self.model)

    def save_preprocessing(self, folder: Path) -> dict[str, Any]:
        """timm's own description: size, mean, standard deviation, resizing and cropping."""
        config = data_config(self.spec, self.model)
        names = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
        return {name: config[name] for name in names if name in config}

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32 latents of a batch `[n, 3, h, w]`, by timm's feature API.

        `pooled [n, d]`, `pooled-cls-mean [n, 2d]` the class token beside the mean of the patch
        tokens, `tokens [n, T, d]` those of the patches, `grid [n, H, W, d]` the last map, `layers
        [n, L, d]`; ConfigError for a view that is not in `spec.views`.
        """
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if not len(batch):  # not every model of timm's can
            return self.encode(batch.new_zeros(1, *batch.shape[1:]), view)[:0]
        pixels = batch.to(self.device)
        if pixels.dtype == torch.uint8:
            assert self.table is not None  # `collate` gives bytes for it only
            pixels = self.table(pixels)
        latents = self.compute(view, pixels=pixels.to(self.dtype))
        if view == "pooled" and latents.ndim != 2:
            raise ContractError(self.spec.name, "latents [n, d]", f"{tuple(latents.shape)}")
        return latents.float()


def data_config(spec: EncoderSpec, model: TimmModel) -> dict[str, Any]:
    """timm's description of the preprocessing, at the size that the spec asks for."""
    size = spec.options.get("size")
    wanted = {"input_size": (3, size, size), "crop_pct": 1.0} if size else {}
    return resolve_model_data_config(model, args=wanted)


def check_name(name: str, *, local: bool) -> None:
    """Raise unless timm knows the model, and has weights for it where none are given."""
    if name.startswith(HUB):
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownNameError.of("timm model", name, timm.list_models())
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged and not local:
        raise UnknownNameError.of("pretrained timm model", name, tagged)
    if not tagged and not local:
        raise ConfigError(
            f"timm has the model {architecture}, but no trained weights for it.",
            f"Give your own: timm:{name}@weights.safetensors",
        )


def from_hub(name: str, revision: str = "") -> TimmModel:
    """timm's model with its weights from the hub, at `revision` if given; every tensor must fit."""
    overlay = None
    if revision and name.startswith(HUB):
        name = f"{name}@{revision}"
    elif revision:
        overlay = {"hf_hub_id": f"{_config(name).hf_hub_id}@{revision}"}
    try:
        # With its own number of classes timm loads strictly; the classifier goes afterwards.
        model = _created(name, pretrained_cfg_overlay=overlay)
    except (OSError, RuntimeError) as error:
        raise ArtefactError(
            f"The weights of timm:{name} could not be had: {_first_line(error)}",
            "Check the network, or give a copy on disk: timm:NAME@model.safetensors",
        ) from error
    return without_classifier(model)


def from_path(name: str, path: Path) -> TimmModel:
    """timm's model with weights from a file, or from a folder in hub layout."""
    if path.is_file():
        return with_state(name, read_state(path), path)
    try:
        model = _created(f"local-dir:{path}")
    except Exception as error:  # a damaged config or file raises anything
        raise _misfit(name, path, error) from error
    found, wanted = model.pretrained_cfg["architecture"], name.partition(".")[0]
    if found != wanted:
        raise ArtefactError(f"{path} contains {found}, not {wanted}.", f"Use timm:{found}@{path}")
    return without_classifier(model)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file, or in a torch file that holds no code."""
    try:
        return dict(load_state_dict(str(path), weights_only=True))
    except Exception as error:  # torch, pickle, zip and safetensors each have their own
        raise ArtefactError(
            f"{path} can't be read as weights: {_first_line(error)}",
            "Save the state dict with safetensors.torch.save_file.",
        ) from error


def with_state(name: str, state: Mapping[str, Tensor], origin: object) -> TimmModel:
    """timm's model `name` without its classifier, holding exactly the tensors of `state`.

    A classifier in `state` is left out; timm's own filter for original checkpoints is applied.
    """
    config = _config(name)
    classifiers = config.classifier or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    heads = {f"{c}.{part}" for c in classifiers for part in ("weight", "bias")}
    overlay = {
        "state_dict": {k: v for k, v in state.items() if k not in heads},
        "num_classes": 0,  # as the model's, so that timm loads strictly
        "custom_load": False,
    }
    try:
        model = _created(name, num_classes=0, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        raise _misfit(name, origin, error) from error
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _config(name: str) -> PretrainedCfg:
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"timm has no {name}"
    return config


def _created(name: str, **options: Any) -> TimmModel:
    """timm's model with its weights; what it draws before it reads them is not the user's."""
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(name, pretrained=True, **options)


def without_classifier(model: TimmModel) -> TimmModel:
    """The model, its classifier removed."""
    model.reset_classifier(0)
    return model


def _misfit(name: str, origin: object, error: Exception) -> ArtefactError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ArtefactError(
        f"The weights in {origin} do not fit timm's {name}: {' '.join(lines)[:400]}",
        "Name the model that they were trained as; timm.list_models() has them all.",
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
