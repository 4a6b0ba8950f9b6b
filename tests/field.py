"""A generator small enough for tests: a field of colour, with noise from a seed."""

import torch
from PIL import Image

from fusemix_core.interfaces import Generator
from fusemix_core.specs import GeneratorSpec


class Field(Generator):
    """The first three numbers of the condition are the colour; guidance takes it away from the
    negative."""

    spec = GeneratorSpec(
        name="field",
        target="field:Field",
        space="toy-text",
        dim=12,
        size=8,
        licence="MIT",
        parameters=0,
        options={"guidance": 1.0, "noise": 0.05},
    )
    loads = 0

    @classmethod
    def load(cls, spec, device, dtype):
        cls.loads += 1
        made = cls()
        made.spec = spec
        return made

    @classmethod
    def tiny(cls, spec):
        return cls.load(spec, torch.device("cpu"), torch.float32)

    def generate(self, condition, *, seeds, negative=None, guidance=1.0, noise=0.05, size=8):
        self.check(condition)
        away = self.null(len(condition)) if negative is None else negative
        rows = away + guidance * (condition - away)
        made = []
        for row, seed in zip(rows.float().cpu(), seeds, strict=True):
            draw = torch.Generator().manual_seed(seed)
            field = row[:3].sigmoid().expand(size, size, 3)
            field = field + noise * torch.randn(size, size, 3, generator=draw)
            pixels = field.clamp(0, 1).mul(255).round().byte().numpy()
            made.append(Image.fromarray(pixels))
        return made
