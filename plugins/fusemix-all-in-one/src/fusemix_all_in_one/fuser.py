"""`rolling`: the joint transformer of All-in-One as a fuser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_all_in_one.rolling import SHARE, roll, roll_by_layer
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.attention import Layer
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import Padded
from fusemix_core.modules import Modules

ROLLS = ("default", "by-layer", "none")
PLACES = 32
"""Embeddings of a frame's place. Frames of longer clips share them."""


class RollingFuser(TrainedFuser[Padded]):
    """A transformer that sees one frame of a clip at a time, with the tokens of all other
    modalities beside it. Before each layer, frames exchange some of their tokens; see `roll`. The
    scores are a linear map of a learnt query's output, averaged over the frames.

    A row without a clip is one frame without tokens.

    Args:
        inputs: modality → the width of a token.
        outputs, mix, drop, training: as in `TrainedFuser`.
        clip: the modality that has frames: its tokens are those of the first frame, then those of
            the second, and so on. All others are seen with every frame.
        per_frame: tokens of a frame: 1 of the view `time`, H · W if each frame has a grid. If there
            are fewer than 8, a linear map makes 8 or more of them.
        roll: `default`, `by-layer` or `none`: then frames don't see each other.
        order: whether a frame has an embedding of its place in the clip.
        width, layers, heads, dropout: of the transformer, as in the fuser `attention`.

    Raises:
        ConfigError: an option is not one of these.

    Example:
        fuser = RollingFuser.fit(train, validation, task, FitContext(), clip="video").fuser
    """

    uses = ("tokens",)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        clip: str = "video",
        per_frame: int = 1,
        roll: str = "default",
        order: bool = True,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        mix: float = 0.4,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        _check(per_frame, roll, width, layers, heads)
        self.clip, self.per_frame, self.roll = clip, per_frame, roll
        self.width, self.pieces = width, math.ceil(SHARE / per_frame)
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(
            nn.Linear(d, width * (self.pieces if modality == clip else 1))
            for modality, d in inputs.items()
        )
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.within = nn.Parameter(0.02 * torch.randn(per_frame * self.pieces, width))
        self.places = nn.Parameter(0.02 * torch.randn(PLACES * order, width))
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.layers = Modules(Layer(width, heads, dropout) for _ in range(layers))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        frames, lengths = self._frames(latents, present)
        shared, mask = self._shared(latents, present)
        count, most = frames.shape[:2]
        shared = shared[:, None].expand(-1, most, -1, -1)
        there = torch.arange(most, device=lengths.device) < lengths[:, None]
        seen = torch.cat(
            [mask[:, None].expand(-1, most, -1), there[..., None].expand(frames.shape[:3])], dim=2
        ).flatten(0, 1)
        for number, layer in enumerate(self.layers):
            hidden = torch.cat([shared, self._rolled(frames, number, lengths)], dim=2)
            last = number == len(self.layers) - 1
            hidden = layer(hidden.flatten(0, 1), seen, first=1 if last else None)
            hidden = hidden.unflatten(0, (count, most))
            shared, frames = hidden[:, :, : shared.shape[2]], hidden[:, :, shared.shape[2] :]
        # A row without a clip has one frame, which is empty.
        counts = torch.arange(most, device=lengths.device) < lengths.clamp(min=1)[:, None]
        each = self.head(self.norm(shared[:, :, 0]))
        return (each * counts[..., None]).sum(dim=1) / counts.sum(dim=1, keepdim=True)

    def _rolled(self, frames: Tensor, layer: int, lengths: Tensor) -> Tensor:
        if self.roll == "none":
            return frames
        if self.roll == "by-layer":
            return roll_by_layer(frames, layer, lengths)
        return roll(frames, lengths)

    def _frames(self, latents: Mapping[str, Padded], present: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of all frames, `[n, F, l, width]`, and how many frames each row has."""
        if self.clip not in self.inputs:
            return self.head.weight.new_zeros(len(present), 1, 0, self.width), present.new_zeros(
                len(present), dtype=torch.long
            )
        k = list(self.inputs).index(self.clip)
        tokens, mask = self._tokens(k, latents[self.clip], present)
        counts = mask.sum(dim=1)
        if (counts % self.per_frame).any():
            raise ConfigError(
                f"A {self.clip} has {int(counts.max())} tokens, and frames of {self.per_frame} "
                "each are wanted.",
                "Set the fuser's option per_frame to the number of tokens of a frame.",
            )
        frames = max(1, int(counts.max()) // self.per_frame) if len(counts) else 1
        wanted = frames * self.per_frame
        tokens = Padded(tokens[:, :wanted], mask[:, :wanted]).padded_to(wanted).filled()
        tokens = tokens.unflatten(2, (self.pieces, self.width)).unflatten(1, (frames, -1))
        lengths = counts // self.per_frame
        return tokens.flatten(2, 3) + self.within + self._place(frames, lengths), lengths

    def _place(self, frames: int, lengths: Tensor) -> Tensor:
        """The embedding of each frame's place, `[n, F, 1, width]`; 0 if there is none."""
        if not len(self.places):
            return self.places.new_zeros(1, 1, 1, 1)
        places = torch.arange(frames, device=lengths.device).expand(len(lengths), -1)
        long = (lengths > PLACES)[:, None]
        places = torch.where(long, places * PLACES // lengths.clamp(min=1)[:, None], places)
        return self.places[places.clamp(max=PLACES - 1)][:, :, None]

    def _shared(self, latents: Mapping[str, Padded], present: Tensor) -> tuple[Tensor, Tensor]:
        """The query and the tokens of all other modalities, `[n, 1 + S, width]`, and bool which of
        them are there."""
        tokens = [self.query.expand(len(present), 1, -1)]
        masks = [present.new_ones(len(present), 1)]
        for k, modality in enumerate(self.inputs):
            if modality != self.clip:
                own, mask = self._tokens(k, latents[modality], present)
                tokens.append(own)
                masks.append(mask)
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)

    def _tokens(self, k: int, given: Padded, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the k-th modality after its linear map, and bool `[n, T]` which are there."""
        mask = given.mask & present[:, k, None]
        mapped = self.maps[k](self.standards[k](Padded(given.values, mask).filled()))
        repeats = mapped.shape[-1] // self.width
        return self.dropout(mapped) + self.types[k].repeat(repeats), mask


def _check(per_frame: int, roll: str, width: int, layers: int, heads: int) -> None:
    if roll not in ROLLS:
        raise ConfigError(
            f"The fuser 'rolling' has no roll '{roll}'.", f"Known: {', '.join(ROLLS)}."
        )
    if layers < 1 or heads < 1 or width % heads or per_frame < 1:
        raise ConfigError(
            f"The fuser 'rolling' has per_frame={per_frame}, layers={layers}, heads={heads}, "
            f"width={width}.",
            "There is one token and one layer or more, and heads divides width.",
        )
