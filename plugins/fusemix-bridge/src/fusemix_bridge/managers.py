"""How a cross-modal layer is fed from the layers of a unimodal encoder: one of them by a bridge
(BridgeTower, arXiv:2206.08657), or a learnt mixture of all (ManagerTower, arXiv:2306.00103)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fusemix_core.modules import Modules


class Manager(nn.Module, ABC):
    """The unimodal layers of a side, and its output of the cross-modal layer before, as the input
    of a cross-modal layer."""

    @abstractmethod
    def forward(
        self, layers: Tensor, previous: Tensor | None, others: Tensor, seen: Tensor
    ) -> Tensor:
        """`[n, T, width]`.

        Args:
            layers: `[n, L, T, width]`, the last one last.
            previous: `[n, T, width]`; None before the first cross-modal layer.
            others, seen: the previous outputs of the other sides, `[n, S, width]`, and which of
                their tokens are there, bool `[n, S]`.
        """


class Bridge(Manager):
    """The norm of one unimodal layer plus the previous output.

    Args:
        width: of a token.
        layer: which one; -1 is the last.
    """

    def __init__(self, width: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.LayerNorm(width)

    def forward(
        self, layers: Tensor, previous: Tensor | None, others: Tensor, seen: Tensor
    ) -> Tensor:
        unimodal = layers[:, self.layer]
        return self.norm(unimodal if previous is None else unimodal + previous)


class Managed(Manager):
    """The norms of both managers: of each layer, and of the previous output."""

    def __init__(self, layers: int, width: int, first: bool) -> None:
        super().__init__()
        self.norms = Modules(nn.LayerNorm(width) for _ in range(layers + (not first)))
        self.temperature = nn.Parameter(torch.ones(1))

    def normed(self, layers: Tensor) -> Tensor:
        """`[n, L, T, width]`."""
        return torch.stack([self.norms[i](layers[:, i]) for i in range(layers.shape[1])], dim=1)


class StaticManager(Managed):
    """A weighted sum of all layers, with weights that are the same for every token.

    The weights of the layers are a softmax; that of the previous output is not among them.

    Args:
        layers, width: of the side.
        first: whether this is the first cross-modal layer, which has no previous output.
        per_channel: whether each channel has weights of its own.
        noise: standard deviation of the noise on the layers' scores in training; None is 1/L, as
            published.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        *,
        first: bool = False,
        per_channel: bool = True,
        noise: float | None = None,
    ) -> None:
        super().__init__(layers, width, first)
        channels = width if per_channel else 1
        scores = torch.full((layers, channels), 1 / layers)
        self.scores = nn.Parameter(torch.cat([scores, torch.ones(int(not first), channels)]))
        self.layers, self.noise = layers, 1 / layers if noise is None else noise

    def weights(self) -> Tensor:
        """Of the layers, `[L, width or 1]`; each channel's sum to 1."""
        return (self.scores[: self.layers] / self.temperature).softmax(dim=0)

    def forward(
        self, layers: Tensor, previous: Tensor | None, others: Tensor, seen: Tensor
    ) -> Tensor:
        normed = self.normed(layers)
        weights = self.weights()[None, :, None]
        if self.training and self.noise:
            scores = self.scores[: self.layers][None, :, None].expand_as(normed)
            scores = scores + self.noise * torch.randn_like(scores)
            weights = (scores / self.temperature).softmax(dim=1)
        mixed = (weights * normed).sum(dim=1)
        if previous is None:
            return mixed
        return mixed + self.scores[self.layers] * self.norms[-1](previous)


class AdaptiveManager(Managed):
    """A weighted sum of all layers, with weights for each token: by the token itself, and by the
    tokens of the other sides that it attends to.

    Padding of the other sides is left out; the published code attends to it as well.

    Args:
        layers, width, per_channel, noise: as in `StaticManager`; `per_channel` is about the weight
            of the previous output.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        *,
        per_channel: bool = True,
        noise: float | None = None,
    ) -> None:
        super().__init__(layers, width, first=False)
        self.other_norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.controller = nn.Linear(2 * width, layers)
        self.before = nn.Parameter(torch.ones(width if per_channel else 1))
        self.noise = 1 / layers if noise is None else noise

    def forward(
        self, layers: Tensor, previous: Tensor | None, others: Tensor, seen: Tensor
    ) -> Tensor:
        assert previous is not None, "the first cross-modal layer has a static manager"
        normed, own = self.normed(layers), self.norms[-1](previous)
        others = self.other_norm(others)
        scores = self.query(own) @ self.key(others).transpose(1, 2) / own.shape[-1] ** 0.5
        weights = scores.masked_fill(~seen[:, None], -1e30).softmax(dim=-1)
        # Of nothing, nothing; the weights of a row that sees no token would be even.
        found = (weights @ others) * seen.any(dim=1)[:, None, None]
        each = self.controller(torch.cat([found, own], dim=-1))
        if self.training and self.noise:
            each = each + self.noise * torch.randn_like(each)
        shares = (each / self.temperature).softmax(dim=-1)
        mixed = (shares.transpose(1, 2)[..., None] * normed).sum(dim=1)
        return mixed + self.before * own
