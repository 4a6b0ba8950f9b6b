"""How much of each of 512 colours is in a picture."""

import numpy as np
import torch
from PIL import Image

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder


class ColourHistogram(Encoder):
    def __init__(self, spec, device):
        self.spec, self.device = spec, device

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec, device)

    @classmethod
    def tiny(cls, spec):
        return cls(spec, torch.device("cpu"))

    def collate(self, items):
        counts = np.zeros((len(items), 512), np.float32)
        for row, image in zip(counts, items, strict=True):
            if not isinstance(image, Image.Image):
                raise TypeError(f"colour-histogram takes PIL images, not {type(image).__name__}")
            r, g, b = np.asarray(image.convert("RGB")).reshape(-1, 3).T.astype(int) // 32
            row[:] = np.bincount(64 * r + 8 * g + b, minlength=512)
        return torch.from_numpy(counts)

    @torch.inference_mode()
    def encode(self, batch, view="pooled"):
        if view != "pooled":
            raise ConfigError(f"colour-histogram has no view '{view}'.", "It has: pooled.")
        return torch.nn.functional.normalize(batch.to(self.device).sqrt(), dim=1)
