"""Latents of the drawings in a list of icons: Skia at 224 pixels, EfficientNet-lite0.

    python -m benchmarks.sets.drawings icons.jsonl FOLDER PART PARTS

Writes part PART (from 0) of PARTS, `FOLDER/images-lite0-PARTofPARTS.npy`, so that processes can
work side by side, and `FOLDER/order.npy`: rows in a random order, so that what is done first is a
fair sample. All of them take hours on two cores. Needs skia-python and fusemix-starter.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fusemix_core.registry import registry

CANVAS, DRAWING = 256, 224
"""The encoder scales to 256 pixels and looks at the 224 in the middle."""
BATCH = 32


def drawn(skia: Any, svg: str) -> Image.Image:
    """The drawing on white, as large as fits; white where Skia can't read it."""
    pixels = np.full((CANVAS, CANVAS, 4), 255, np.uint8)
    document = skia.SVGDOM.MakeFromStream(skia.MemoryStream(svg.encode(), True))
    if document is not None:
        size = document.containerSize()
        wide, high = size.width() or 24, size.height() or 24
        scale = DRAWING / max(wide, high)
        surface = skia.Surface(pixels)
        with surface as canvas:
            canvas.translate((CANVAS - wide * scale) / 2, (CANVAS - high * scale) / 2)
            canvas.scale(scale, scale)
            document.render(canvas)
        surface.flushAndSubmit()
    return Image.fromarray(pixels[..., :3].copy())


def write_part(source: Path, folder: Path, part: int, parts: int) -> None:
    """Row j of the part is that of line `order[part + parts · j]`."""
    import skia

    lines = source.read_text(encoding="utf-8").splitlines()
    order = np.random.default_rng(0).permutation(len(lines))
    np.save(folder / "order.npy", order)
    spec = registry.encoder("efficientnet-lite0", "image")
    encoder = registry.target_of(spec).load(spec, torch.device("cpu"), torch.float32)
    own = order[part::parts]
    path = folder / f"images-lite0-{part}of{parts}.npy"
    out = np.lib.format.open_memmap(path, "w+", np.float16, (len(own), spec.dim))
    for start in range(0, len(own), BATCH):
        rows = own[start : start + BATCH]
        images = [drawn(skia, json.loads(lines[row])["svg"]) for row in rows]
        out[start : start + len(rows)] = encoder.encode(encoder.collate(images)).numpy()
        print(f"\r{start + len(rows):,} of {len(own):,}", end="", flush=True)
    out.flush()


if __name__ == "__main__":
    write_part(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
