"""`attention`: a transformer on the tokens of all modalities."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded
from fusemix_core.prediction import Task

PLACES = 512
"""Tokens of an item that have an embedding of their place, if places matter."""


class Layer(nn.Module):
    """A pre-norm transformer layer.

    Args:
        width: of a token.
        heads: of attention.
        dropout: of both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.ff_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor, first: int | None = None) -> Tensor:
        """Tokens `[n, T, width]`; if `first` is given, only so many of the first ones.

        Args:
            tokens: `[n, T, width]`.
            mask: bool `[n, T]`, the tokens that others see.
        """
        normed = self.norm(tokens)
        q = self._split(self.query(normed[:, :first]))
        k, v = (self._split(x) for x in self.keys(normed).chunk(2, dim=-1))
        seen = scaled_dot_product_attention(q, k, v, mask[:, None, None])
        hidden = tokens[:, :first] + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.down(gelu(self.up(self.ff_norm(hidden)))))

    def _split(self, x: Tensor) -> Tensor:
        """`[n, T, width]` as `[n, heads, T, width / heads]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionFuser(TrainedFuser[Padded]):
    """A transformer on the tokens of all modalities; a pooled latent is one token. Each token is
    standardised, mapped to one width and gets the embedding of its modality. The scores are a
    linear map of a learnt query, which attends to all of them; for labels of tokens, of each token
    itself, and of the query in place of a token that isn't there.

    Args:
        inputs: modality → the width of a token.
        outputs, mix, drop, training: as in `TrainedFuser`.
        width: of all tokens inside.
        layers: of the transformer, 1 or more.
        heads: of attention, which divide `width`.
        dropout: of each branch.
        places: the first so many tokens of each item have an embedding of their place too.
        tagged: the modality whose tokens the scores are of; the task decides.
        tags: scores of each of them.

    Raises:
        ConfigError: `layers` is 0, `heads` does not divide `width`, or `tagged` isn't a modality.
    """

    uses = ("tokens",)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        places: int = 0,
        tagged: str = "",
        tags: int = 0,
        mix: float = 0.4,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if layers < 1 or heads < 1 or width % heads:
            raise ConfigError(
                f"The fuser 'attention' has layers={layers}, heads={heads} and width={width}.",
                "There is one layer or more, and heads divides width.",
            )
        if tagged and (tagged not in inputs or not tags or outputs % tags):
            raise ConfigError(
                f"The labels are of tokens of '{tagged}', which is none of {', '.join(inputs)}.",
                "Add its encoder (-e), or name another modality: --task 'tag modality=NAME'",
            )
        self.tagged, self.length = tagged, outputs // tags if tagged else 0
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.query = nn.Parameter(0.02 * torch.randn(width))
        shape = len(inputs), places, width
        self.places = nn.Parameter(0.02 * torch.randn(shape)) if places else None
        self.layers = Modules(Layer(width, heads, dropout) for _ in range(layers))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        self.head = nn.Linear(width, tags if tagged else outputs)

    @classmethod
    def suited(cls, task: Task) -> dict[str, Any]:
        found: dict[str, Any] = {"places": PLACES} if task.placed else {}
        if task.tagged:
            found |= {"tagged": task.tagged, "tags": task.outputs // task.length}
        return found

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        tokens = [self.query.expand(len(present), 1, -1)]
        masks = [present.new_ones(len(present), 1)]
        for k, modality in enumerate(self.inputs):
            mask = latents[modality].mask & present[:, k, None]
            given = Padded(latents[modality].values, mask).filled()
            mapped = self.dropout(self.maps[k](self.standards[k](given))) + self.types[k]
            if self.places is not None:
                mapped = mapped + _padded(self.places[k], mapped.shape[1])
            tokens.append(mapped)
            masks.append(mask)
        hidden, mask = torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
        for number, layer in enumerate(self.layers, 1):
            only_query = number == len(self.layers) and not self.tagged
            hidden = layer(hidden, mask, first=1 if only_query else None)
        if not self.tagged:
            return self.head(self.norm(hidden[:, 0]))
        return self._of_tokens(hidden, masks)

    def _of_tokens(self, hidden: Tensor, masks: list[Tensor]) -> Tensor:
        """Scores `[n, length · tags]` of the tokens of one modality, from those of all."""
        at = list(self.inputs).index(self.tagged) + 1  # the query comes first
        start = sum(mask.shape[1] for mask in masks[:at])
        count = min(self.length, masks[at].shape[1])
        scores = self.head(self.norm(hidden))
        whole = scores[:, :1].expand(-1, self.length, -1)
        there = masks[at][:, :count, None]
        own = torch.where(there, scores[:, start : start + count], whole[:, :count])
        return torch.cat([own, whole[:, count:]], dim=1).flatten(1)


def _padded(places: Tensor, count: int) -> Tensor:
    """The embeddings of `count` places, `[count, width]`; zeros beyond those there are."""
    return pad(places[:count], (0, 0, 0, max(0, count - len(places))))
