"""`glance`: a fuser that learns which moments of a clip matter, and which region of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.attention import Layer
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import Padded
from fusemix_core.modules import Modules

_NEVER = -1e30


@dataclass(frozen=True)
class Glance:
    """The cheap pass over n clips.

    Attributes:
        saliency: float `[n, M]`: how much each moment counts; a row's sum is 1.
        regions: float `[n, M, R]`: how much each region of a moment counts; 0 if it shows nothing.
        vectors: float `[n, M, width]`: what was seen and heard at each moment.
    """

    saliency: Tensor
    regions: Tensor
    vectors: Tensor

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The moments to look at and their regions, int64 `[n, count]`, most salient first."""
        moments = self.saliency.topk(min(count, self.saliency.shape[1]), dim=1).indices
        return moments, self.regions_of(moments)

    def regions_of(self, moments: Tensor) -> Tensor:
        """The region that counts most of each of these moments, int64 like `moments`."""
        if not self.regions.shape[2]:
            return torch.zeros_like(moments)
        return self.regions.argmax(dim=2).gather(1, moments)


class GlanceFuser(TrainedFuser[Padded]):
    """Attention to the regions of each moment, asked for by its sound, then to the moments. The
    scores are a linear map of the attended, so only the task teaches both.

    Args:
        inputs: modality → the width of a token.
        outputs, mix, drop, training: as in `TrainedFuser`.
        seen: the modality whose tokens of a moment are regions of it. The tokens of every other
            modality are heard with each moment, and ask for a region.
        moments: of a clip. A modality has a multiple of as many tokens, in order of time; or one,
            which belongs to the whole clip.
        width: of all tokens inside.
        layers, heads: of the transformer that compares moments; `heads` divides `width`.
        dropout: of tokens, and in the transformer.

    Raises:
        ConfigError: an option is out of range.

    Example:
        fuser = GlanceFuser.fit(train, validation, task, FitContext(), moments=30).fuser
        fuser.glance(latents, present).best(4)  # which 4 moments, and where in each
    """

    uses = ("tokens",)
    settings = replace(TrainedFuser.settings, epochs=40, patience=6)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        seen: str = "image",
        moments: int = 30,
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.3,
        mix: float = 0.0,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if moments < 1 or layers < 1 or heads < 1 or width % heads:
            raise ConfigError(
                f"The fuser 'glance' has moments={moments}, layers={layers}, heads={heads}, "
                f"width={width}.",
                "There is one moment and one layer or more, and heads divides width.",
            )
        self.seen, self.moments = seen, moments
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.times = nn.Parameter(0.02 * torch.randn(moments, width))
        self.query, self.ask = nn.Parameter(0.02 * torch.randn(width)), nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.layers = Modules(Layer(width, heads, dropout) for _ in range(layers))
        self.salient = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        found = self.glance(latents, present)
        attended = (found.saliency[..., None] * found.vectors).sum(dim=1)
        return self.head(self.dropout(self.norm(attended)))

    def glance(self, latents: Mapping[str, Padded], present: Tensor) -> Glance:
        """Which moments and regions count.

        Args:
            latents, present: as in `forward`.
        """
        heard = self.query.new_zeros(len(present), self.moments, len(self.query))
        there = present.new_zeros(len(present), self.moments)
        regions, shown = heard[:, :, None, :][:, :, :0], there[:, :, None][:, :, :0]
        for k, modality in enumerate(self.inputs):
            tokens, mask = self._by_moment(k, latents[modality], present)
            there = there | mask.any(dim=2)
            if modality == self.seen:
                regions, shown = tokens, mask
            else:
                count = mask.sum(dim=2, keepdim=True).clamp(min=1)
                heard = heard + (tokens * mask[..., None]).sum(dim=2) / count
        asked = self.query + self.ask(heard)
        scores = (self.key(regions) @ asked[..., None])[..., 0] / len(self.query) ** 0.5
        shares = scores.masked_fill(~shown, _NEVER).softmax(dim=2) * shown
        vectors = heard + (shares[..., None] * regions).sum(dim=2)
        hidden = vectors + self.times
        for layer in self.layers:
            hidden = layer(hidden, there)
        salient = self.salient(hidden)[..., 0].masked_fill(~there, _NEVER)
        return Glance(salient.softmax(dim=1), shares, vectors)

    def _by_moment(self, k: int, given: Padded, present: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of the k-th modality after its linear map, `[n, M, R, width]`, and bool which
        of them are there."""
        mask = given.mask & present[:, k, None]
        counts = mask.sum(dim=1)
        most = int(counts.max()) if len(counts) else 0
        tokens = self.maps[k](self.standards[k](Padded(given.values, mask).filled()))
        tokens = self.dropout(tokens) + self.types[k]
        if most <= 1:
            tokens, mask = tokens[:, None, :1], mask[:, None, :1]
            return tokens.expand(-1, self.moments, -1, -1), mask.expand(-1, self.moments, -1)
        if self.moments > 1 and (most % self.moments or ((counts != most) & (counts > 0)).any()):
            raise ConfigError(
                f"An item of {list(self.inputs)[k]} has {most} tokens, which aren't those of "
                f"{self.moments} moments.",
                "Set the fuser's option moments to the number of moments of a clip.",
            )
        wanted = Padded(tokens[:, :most], mask[:, :most])
        return (
            wanted.values.unflatten(1, (self.moments, -1)),
            wanted.mask.unflatten(1, (self.moments, -1)),
        )
