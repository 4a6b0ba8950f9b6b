"""`dense`: one linear map for every place of an image, so that scores are a map themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from fusemix_core.context import FitContext
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded
from fusemix_core.prediction import Task


class DenseFuser(TrainedFuser[Padded]):
    """A dense linear probe: each token is standardised, and the same linear map gives its logits.
    Those of the view `grid` are a map, which is enlarged to the size of the target.

    Another view, such as the tokens of a text, adds the same to all places: the mean over its
    tokens. The maps of several modalities are averaged. If the outputs of the task are not a map,
    they are the mean over the places: a linear probe on the mean token.

    Args:
        inputs: modality → the width of a token.
        outputs, mix, drop, training: as in `TrainedFuser`.
        size: pixels of a side of the target, which the task decides.
        grids: modality → height and width of its grid, which `fit` finds.
        crop: the share of the image's shorter side that the encoder sees, in its middle: 1.0 for
            RAD-DINO, 0.875 for EfficientNet-Lite and DINOv2. The border has the scores of its
            nearest place.
        dropout: of tokens' columns.

    Raises:
        ConfigError: `crop` is not above 0 and at most 1, or `outputs` isn't a multiple of `size`
            squared.
    """

    uses = ("tokens",)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        size: int = 1,
        grids: Mapping[str, Sequence[int]] = MappingProxyType({}),
        crop: float = 1.0,
        dropout: float = 0.0,
        mix: float = 0.0,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if not 0 < crop <= 1 or size < 1 or outputs % size**2:
            raise ConfigError(
                f"The fuser 'dense' has crop={crop}, and size={size} for {outputs} outputs.",
                "crop is above 0 and at most 1; leave size to the task.",
            )
        self.size, self.crop = size, crop
        self.grids = [tuple(grids.get(m, ())) for m in inputs]
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.dropout = nn.Dropout(dropout)
        self.maps = Modules(nn.Linear(d, outputs // size**2) for d in inputs.values())

    @classmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        shapes = {m: table.shape for m, table in train.pairs.tables.items()}
        learnt = {
            "size": task.map_shape[-1] if task.map_shape else 1,
            "grids": {m: list(shape[:2]) for m, shape in shapes.items() if len(shape) == 3},
        }
        return super().fit(train, validation, task, context, **{**learnt, **options})

    def prepare(self, train: Labelled) -> None:
        for modality, standard, own in zip(self.inputs, self.standards, self.maps, strict=True):
            standard.learn(sample(train, modality))
            nn.init.zeros_(own.weight)
            nn.init.zeros_(own.bias)

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        found = torch.zeros(len(present), self.outputs, device=present.device)
        for k, modality in enumerate(self.inputs):
            if not present[:, k].any():  # its latents are a placeholder, of any shape
                continue
            own = self._scores(k, latents[modality])
            found = found + torch.where(present[:, k, None], own, 0.0)
        return found / present.sum(dim=1, keepdim=True)

    def _scores(self, k: int, tokens: Padded) -> Tensor:
        """Scores `[n, outputs]` from modality number `k`."""
        logits = self.maps[k](self.dropout(self.standards[k](tokens.filled())))
        if self.size > 1 and self.grids[k]:
            return self._enlarged(logits.mT.unflatten(2, self.grids[k])).flatten(1)
        mask = tokens.mask[..., None]
        mean = torch.where(mask, logits, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return mean[:, :, None].expand(-1, -1, self.size**2).flatten(1)

    def _enlarged(self, maps: Tensor) -> Tensor:
        """`[n, K, H, W]` as `[n, K, size, size]`."""
        inner = max(1, round(self.crop * self.size))
        before = (self.size - inner) // 2
        after = self.size - inner - before
        found = interpolate(maps, size=(inner, inner), mode="bilinear", antialias=True)
        return pad(found, (before, after, before, after), mode="replicate")
