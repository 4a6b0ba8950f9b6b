"""`ImageEncoder`: images through any transformers model that reads pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.interfaces import Network, Padded
from fusemix_core.specs import EncoderSpec
from fusemix_hf.base import HfEncoder, blocks
from fusemix_hf.loading import load_processor

_AS_BYTES = {"do_rescale": False, "do_normalize": False}


class ImageEncoder(HfEncoder):
    """Images; the latent is the model's own pooling.

    That is its `pooler_output` if it has one with trained weights, else the class token, else
    the mean over all positions. Views of a vision transformer: `tokens`, one a patch, row by row;
    `grid`, these by row and column; `layers`, after each block the class token (or the mean of the
    patches, if there is none), and as the last one `pooled`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [name for name, _ in self.model.named_parameters()]
        self.class_token = any("cls_token" in n or "class_embedding" in n for n in names)
        if hasattr(self.config, "mask_ratio"):
            self.config.mask_ratio = 0.0  # a masked autoencoder hides most patches otherwise
        on_gpu = self.device.type == "cuda"
        self.table = PixelTable.of(self._pixels, self._bytes, self.device) if on_gpu else None

    @classmethod
    def load_processor(cls, spec: EncoderSpec) -> Any:
        """The image processor on Pillow, whatever else is installed, for others' pixels differ."""
        return load_processor(AutoImageProcessor, spec, backend="pil")

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random ViT of two layers on pictures of 4 by 4 patches."""
        from fusemix_hf.tiny import WIDTH, tiny_image

        views = ("pooled", "tokens", "grid", "layers")
        spec = replace(spec, dim=WIDTH, views=views, options={})
        spec = replace(spec, weights="", sha256="", revision="")
        return cls(spec, *tiny_image(), torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[Image.Image]) -> dict[str, Tensor]:
        """PIL images as the model's own processor prepares them: `pixel_values [n, 3, h, w]`, …

        For a GPU these are uint8 if `encode` can normalise them there to the same numbers.
        """
        self.check(items, Image.Image, "PIL images")
        if not items:
            return {}
        return self._prepared(items, **({} if self.table is None else _AS_BYTES))

    def _prepared(self, items: Sequence[Image.Image], **options: bool) -> dict[str, Tensor]:
        pictures = [item.convert("RGB") for item in items]
        prepared = self.processor(
            images=pictures, input_data_format="channels_last", return_tensors="pt", **options
        )
        return {name: value for name, value in prepared.items() if isinstance(value, Tensor)}

    def _pixels(self, image: Image.Image) -> Tensor:
        """What the processor makes of an image, `[3, h, w]` in most models."""
        return self._prepared([image])["pixel_values"][0]

    def _bytes(self, image: Image.Image) -> Tensor:
        """The same, neither scaled nor normalised."""
        return self._prepared([image], **_AS_BYTES)["pixel_values"][0]

    def encode(self, batch: dict[str, Tensor], view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, d]`, `layers [n, L, d]`, and what else `spec.views` contains."""
        pixels = batch.get("pixel_values") if batch else None
        if pixels is not None and pixels.dtype == torch.uint8:
            assert self.table is not None  # `collate` gives bytes for it only
            batch = {**batch, "pixel_values": self.table(pixels.to(self.device))}
        return super().encode(batch, view)

    def blank(self) -> Image.Image:
        return Image.new("RGB", (64, 64))

    def network(self, view: str) -> Network | None:
        """The model and its pooling, of pixels."""
        return self.network_of(view, axes=(0,))

    def give(self, batch: dict[str, Tensor], view: str) -> Tensor:
        if self.spec.options.get("tower"):
            return self.features(batch)
        if self.config.model_type == "vit_mae":
            batch = {**batch, "noise": self._in_order(batch["pixel_values"])}
        output = self.run(batch, output_hidden_states=view == "layers")
        if view == "pooled":
            return self._pooled(output)
        rows, columns = self._patches(batch["pixel_values"])
        if view == "layers":
            before = [self._class_or_mean(h, rows * columns) for h in blocks(output)[:-1]]
            return torch.stack([*before, self._pooled(output)], dim=1)
        tokens = output.last_hidden_state[:, -rows * columns :].float()
        return tokens.unflatten(1, (rows, columns)) if view == "grid" else tokens

    def _pooled(self, output: Any) -> Tensor:
        """float32 `[n, d]`."""
        pooler = getattr(output, "pooler_output", None)
        if pooler is not None and self.pooler:
            return pooler.flatten(1).float()
        last = output.last_hidden_state
        if last.ndim == 4:  # [n, d, h, w]
            return last.float().mean(dim=(2, 3))
        return self._class_or_mean(last, last.shape[1])

    def _class_or_mean(self, hidden: Tensor, patches: int) -> Tensor:
        if self.class_token:
            return hidden[:, 0].float()
        return hidden[:, -patches:].float().mean(dim=1)

    def _patches(self, pixels: Tensor) -> tuple[int, int]:
        """(rows, columns) of the patches of `pixels [n, 3, h, w]`."""
        size = self.config.patch_size
        high, wide = size if isinstance(size, list | tuple) else (size, size)
        return pixels.shape[2] // high, pixels.shape[3] // wide

    def _in_order(self, pixels: Tensor) -> Tensor:
        """The noise by which a masked autoencoder sorts its patches, so that they stay in order."""
        rows, columns = self._patches(pixels)
        return torch.arange(rows * columns).expand(len(pixels), -1).float()
