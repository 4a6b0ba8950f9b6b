"""`grid`: maps of several sensors, fused by convolutions (arXiv:2402.00637)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from fusemix_bev.layers import Block, Decoder, Dilated
from fusemix_core.config import Training
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import FitContext, Padded, Task
from fusemix_core.modules import Modules
from fusemix_core.tasks.occupy import Occupy

DILATIONS = ("content", "fixed", "none")
GATES = ("own", "both")


class GridFuser(TrainedFuser[Padded]):
    """Convolutions on the grids of several sensors. Grids of other sizes are resized to one; a
    modality that has none, such as a text, is the same in every cell.

    The first modality is the reference. The map of each other one goes through dilated
    convolutions, mixed cell by cell by its content, because its cells may be some cells away from
    where the reference has them. Then the maps are concatenated. For the task `occupy` a two-stage
    decoder gives the logits of coarse, then of all cells; for any other task the scores are a
    linear map of the mean over the cells.

    Args:
        inputs, outputs, mix, drop, training: as in `TrainedFuser`.
        dilation: `content`, as above; `fixed`, the same convolutions with mixtures that don't
            depend on the content, which is the control; `none`, no dilated convolutions.
        gate: what the mixtures of `content` depend on: the map itself (`own`), or the reference's
            too (`both`).
        dilations: in cells; how far the convolutions reach.
        width: channels.
        grid: height and width of the map; `fit` takes those of the task, or of the largest grid.
        sizes: modality → height and width of its grids; `fit` takes them from the latents.

    Raises:
        ConfigError: an option is out of range, or the outputs don't belong to the grid.
    """

    uses = ("tokens",)
    settings = Training(
        epochs=20,
        batch_size=32,
        lr=3e-3,
        weight_decay=0.02,
        warmup_steps=20,
        clip_norm=1.0,
        evaluate_every=2,
        patience=4,
        precision="float32",
        compile="off",
    )

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        dilation: str = "content",
        gate: str = "own",
        dilations: Sequence[int] = (1, 2, 3),
        width: int = 24,
        grid: Sequence[int] = (),
        sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
        mix: float = 0.0,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if dilation not in DILATIONS or gate not in GATES:
            raise ConfigError(
                f"The fuser 'grid' has dilation={dilation} and gate={gate}.",
                f"dilation is one of {', '.join(DILATIONS)}; gate one of {', '.join(GATES)}.",
            )
        if width < 1 or min(dilations, default=0) < 1:
            raise ConfigError(
                f"The fuser 'grid' has width={width} and dilations={list(dilations)}.",
                "Both are 1 or more: dilations=[1,2,3]",
            )
        self.sizes = {m: (int(h), int(w)) for m, (h, w) in sizes.items()}
        self.decodes, largest = bool(grid), max(self.sizes.values(), key=math.prod, default=(1, 1))
        self.shape = (int(grid[0]), int(grid[1])) if grid else largest
        self.means = nn.ParameterList(_buffer(torch.zeros(d)) for d in inputs.values())
        self.scales = nn.ParameterList(_buffer(torch.ones(d)) for d in inputs.values())
        self.maps = Modules(nn.Conv2d(d, width, 1) for d in inputs.values())
        self.blocks = Modules(Block(width, width) for _ in inputs)
        self.absent = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        seen = width * (2 if gate == "both" else 1)
        self.dilated = Modules(
            Dilated(width, dilations, dilation == "content", seen)
            for _ in range(len(inputs) - 1 if dilation != "none" else 0)
        )
        self.both = gate == "both"
        self.fused = nn.Sequential(Block(len(inputs) * width, width), Block(width, width))
        self.head = Decoder(width) if self.decodes else nn.Linear(width, outputs)
        self.fine, coarse = math.prod(self.shape), math.prod(-(-side // 2) for side in self.shape)
        if self.decodes and outputs not in (self.fine, self.fine + coarse):
            raise ConfigError(
                f"A grid of {self.shape} has {self.fine} cells and {coarse} coarse ones; the task "
                f"has {outputs} outputs.",
                "Leave out the option grid: the task `occupy` gives it.",
            )

    @classmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        tables = train.pairs.tables.items()
        found: dict[str, Any] = {
            "sizes": {m: list(table.shape[:2]) for m, table in tables if len(table.shape) == 3}
        }
        if isinstance(task, Occupy):
            found["grid"] = [task.height, task.width]
        return super().fit(train, validation, task, context, **{**found, **options})

    def prepare(self, train: Labelled) -> None:
        for k, modality in enumerate(self.inputs):
            rows = sample(train, modality)
            if len(rows):
                spread = rows.std(dim=0, correction=0)
                self.means[k].copy_(rows.mean(dim=0))
                self.scales[k].copy_(torch.where(spread > 0, 1 / spread.clamp(min=1e-12), 0.0))

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        maps = self._maps(latents, present)
        reference = maps[0]
        for k, dilated in enumerate(self.dilated, 1):
            seen = torch.cat([maps[k], reference], dim=1) if self.both else maps[k]
            maps[k] = dilated(maps[k], seen)
        hidden = self.fused(torch.cat(maps, dim=1))
        if not isinstance(self.head, Decoder):
            return self.head(hidden.mean(dim=(2, 3)))
        return torch.cat(self.head(hidden), dim=1)[:, : self.outputs]

    def _maps(self, latents: Mapping[str, Padded], present: Tensor) -> list[Tensor]:
        """The map of each modality, `[n, width, H, W]`; the same in all cells if it is missing."""
        found = []
        for k, modality in enumerate(self.inputs):
            there = present[:, k]
            given = Padded(latents[modality].values, latents[modality].mask & there[:, None])
            values = (given.filled() - self.means[k]) * self.scales[k]
            values = values * given.mask[..., None]
            own = self.blocks[k](self.maps[k](self._on_grid(modality, values, given.mask)))
            absent = self.absent[k][None, :, None, None]
            found.append(torch.where(there[:, None, None, None], own, absent))
        return found

    def _on_grid(self, modality: str, values: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[n, T, d]` as a map `[n, d, H, W]`."""
        if modality not in self.sizes:
            mean = values.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
            return mean[:, :, None, None].expand(-1, -1, *self.shape)
        size = self.sizes[modality]
        values = pad(values, (0, 0, 0, math.prod(size) - values.shape[1]))  # or cut what is more
        own = values.transpose(1, 2).unflatten(2, size)
        if size == self.shape:
            return own
        return interpolate(own, size=self.shape, mode="bilinear", align_corners=False)


def _buffer(values: Tensor) -> nn.Parameter:
    """Numbers that are saved and not trained."""
    return nn.Parameter(values, requires_grad=False)
