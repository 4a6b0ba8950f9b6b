"""`reason`: ARL's reasoning layers on the tokens of an image, a text, and its entities."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_arl.reason import ReasonLayer
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import Padded
from fusemix_core.modules import Modules

ROLES = ("image", "text", "knowledge")
PLACE = 2
"""The last numbers of an entity's token: where its mention begins and ends."""

Tokens = tuple[Tensor, Tensor]


class ReasonFuser(TrainedFuser[Padded]):
    """Layers in which a text's tokens attend to an image, and take in the entities that they
    mention. The scores are a linear map of the mean tokens of all sides.

    The first modality is the image, or whatever the text is about; the second one is the text; the
    third one has the entities, as the encoders `mentions:FILE` give them. With fewer modalities the
    last are left out. A token's place in the text is estimated from its number.

    Args:
        inputs, outputs, mix, drop, training: as in `TrainedFuser`.
        depth: layers.
        width: of tokens inside.
        knowledge_width: of entities inside.
        heads: of attention, which divide both widths.
        dropout: of tokens.

    Raises:
        ConfigError: there are more than three modalities, or an option is out of range.
    """

    uses = ("tokens",)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        depth: int = 2,
        width: int = 96,
        knowledge_width: int = 48,
        heads: int = 4,
        dropout: float = 0.1,
        mix: float = 0.0,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if len(inputs) > len(ROLES):
            raise ConfigError(
                f"The fuser 'reason' takes three modalities, not {len(inputs)}.",
                "In this order: what the text is about, the text, the entities that it mentions.",
            )
        if depth < 1 or heads < 1 or width % heads or knowledge_width % heads:
            raise ConfigError(
                f"The fuser 'reason' has depth={depth}, heads={heads}, width={width} and "
                f"knowledge_width={knowledge_width}.",
                "There is one layer or more, and heads divides both widths.",
            )
        self.widths_inside = (width, width, knowledge_width)[: len(inputs)]
        given = [d - PLACE if k == 2 else d for k, d in enumerate(inputs.values())]
        if min(given) < 1:
            raise ConfigError(
                "The entities' tokens have no vector before their place.",
                "The third modality is one of an encoder mentions:FILE.",
            )
        self.standards = Modules(Standard(d) for d in given)
        own = zip(given, self.widths_inside, strict=True)
        self.maps = Modules(nn.Linear(d, inside) for d, inside in own)
        self.absent = nn.ParameterList(torch.zeros(inside) for inside in self.widths_inside)
        self.layers = Modules(
            ReasonLayer(width, heads, 2 * width, knowledge_width, heads, 2 * knowledge_width)
            for _ in range(depth)
        )
        self.knowledge_width, self.width = knowledge_width, width
        self.dropout = nn.Dropout(dropout)
        self.norms = Modules(nn.LayerNorm(inside) for inside in self.widths_inside)
        self.head = nn.Linear(sum(self.widths_inside), outputs)

    def prepare(self, train: Labelled) -> None:
        for k, (modality, standard) in enumerate(zip(self.inputs, self.standards, strict=True)):
            rows = sample(train, modality)
            standard.learn(rows[:, :-PLACE] if k == 2 else rows)

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        given = [
            Padded(latents[m].values, latents[m].mask & present[:, k, None])
            for k, m in enumerate(self.inputs)
        ]
        sides: list[Tokens] = []
        for k, one in enumerate(given):
            values = one.filled()[..., :-PLACE] if k == 2 else one.filled()
            x = self.dropout(self.maps[k](self.standards[k](values)))
            sides.append((x * one.mask[..., None], one.mask))
        image, text, entities = (*sides, *self._nothing(present, len(sides)))
        position = self._position(given)
        for layer in self.layers:
            x, z = layer(text, image, entities, position)
            text, entities = (x, text[1]), (z, entities[1])
        parts = [
            self._mean(k, side) for k, side in enumerate((image, text, entities)[: len(sides)])
        ]
        return self.head(torch.cat(parts, dim=1))

    def _nothing(self, present: Tensor, count: int) -> list[Tokens]:
        """One token that isn't there, for each role that no modality has."""
        widths = (self.width, self.width, self.knowledge_width)[count:]
        masks = present.new_zeros(len(present), 1)
        return [(self.head.weight.new_zeros(len(present), 1, width), masks) for width in widths]

    def _position(self, given: list[Padded]) -> Tensor:
        """`[n, E, L]`: which tokens of the text each mention covers."""
        if len(given) < len(ROLES):
            length = given[1].mask.shape[1] if len(given) > 1 else 1
            return self.head.weight.new_zeros(len(given[0]), 1, length)
        mask, entities = given[1].mask, given[2]
        place = torch.arange(mask.shape[1], device=mask.device)
        count = mask.sum(dim=1).clamp(min=1)[:, None, None]
        begin, end = entities.filled()[..., -PLACE:].unbind(dim=-1)
        covers = (begin[..., None] * count < place + 1) & (end[..., None] * count > place)
        covers = covers & mask[:, None] & entities.mask[..., None]
        return covers.to(self.head.weight.dtype)

    def _mean(self, number: int, side: Tokens) -> Tensor:
        """The mean token of a side, `[n, width]`; a vector of its own if there is none."""
        x, mask = side
        total = (x * mask[..., None]).sum(dim=1)
        mean = self.norms[number](total / mask.sum(dim=1, keepdim=True).clamp(min=1))
        return torch.where(mask.any(dim=1, keepdim=True), mean, self.absent[number])
