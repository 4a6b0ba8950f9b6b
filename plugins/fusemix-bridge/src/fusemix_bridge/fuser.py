"""`cross`: the cross-modal encoders of BridgeTower and ManagerTower as a fuser."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_bridge.cross import CrossLayer
from fusemix_bridge.managers import AdaptiveManager, Bridge, Manager, StaticManager
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import Padded
from fusemix_core.modules import Modules

MANAGERS = ("bridge", "last", "static", "adaptive")


class CrossFuser(TrainedFuser[Padded]):
    """Cross-modal layers on the tokens of all modalities. In each, a token attends to its own side,
    then to all other sides.

    A side's tokens at a layer depend on the manager: `bridge` adds one layer of the
    frozen encoder, a later one each time, up to the last; `static` a learnt mixture of all layers;
    `adaptive` a mixture for each token, which the other sides have a say in; `last` the encoder's
    last layer each time, as encoders are fused without bridges.

    A side's vector is the mean of its tokens, through a linear map and tanh (the papers take the
    first token, which not every encoder has); the scores are a linear map of all sides' vectors.

    Args:
        inputs: modality → the width of a token. The latent of a token is that of all `layers`, one
            after another, the last one last.
        outputs, mix, drop, training: as in `TrainedFuser`.
        manager: `bridge`, `static`, `adaptive` or `last`.
        layers: of the encoders, in each token's latent; a mapping if they differ, modality →
            how many.
        depth: cross-modal layers.
        width: of all tokens inside.
        heads: of attention, which divide `width`.
        dropout: of tokens that come in, and before the scores.

    Raises:
        ConfigError: an option is not one of these, or a width is not `layers` times another.
    """

    uses = ("tokens",)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        manager: str = "bridge",
        layers: int | Mapping[str, int] = 1,
        depth: int = 2,
        width: int = 128,
        heads: int = 4,
        dropout: float = 0.1,
        mix: float = 0.4,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        own = {m: layers if isinstance(layers, int) else layers.get(m, 1) for m in inputs}
        _check(inputs, manager, own, depth, width, heads)
        self.layers = list(own.values())
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d // own[m], width) for m, d in inputs.items())
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.places = nn.Parameter(0.02 * torch.randn(max(self.layers), width))
        self.managers = Modules(
            Modules(_manager(manager, own[m], width, at, depth) for m in inputs)
            for at in range(depth)
        )
        self.crossed = Modules(
            Modules(CrossLayer(width, heads, 4 * width) for _ in inputs) for _ in range(depth)
        )
        self.poolers = Modules(nn.Linear(width, width) for _ in inputs)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * len(inputs), outputs)

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    def layer_weights(self) -> dict[str, list[Tensor]]:
        """modality → the mean weight of each encoder layer in each cross-modal layer, `[L]`, where
        a static manager gives it."""
        return {
            modality: [
                manager.weights().mean(dim=1).detach()
                for manager in (stage[k] for stage in self.managers)
                if isinstance(manager, StaticManager)
            ]
            for k, modality in enumerate(self.inputs)
        }

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        return self.head(self.dropout(torch.cat(self.pooled(latents, present), dim=1)))

    def pooled(self, latents: Mapping[str, Padded], present: Tensor) -> list[Tensor]:
        """The vector of each side, `[n, width]`; arguments as in `forward`."""
        masks = [latents[m].mask & present[:, k, None] for k, m in enumerate(self.inputs)]
        layers = [self._layers(k, latents[m], masks[k]) for k, m in enumerate(self.inputs)]
        sides: list[Tensor | None] = [None] * len(layers)
        for managers, crossed in zip(self.managers, self.crossed, strict=True):
            before = [
                own[:, -1] if side is None else side
                for side, own in zip(sides, layers, strict=True)
            ]
            bridged = [
                managers[k](layers[k], sides[k], *_others(k, before, masks))
                for k in range(len(layers))
            ]
            sides = [
                crossed[k](bridged[k], masks[k], *_others(k, bridged, masks))
                for k in range(len(layers))
            ]
        pooled = []
        for side, mask, pooler in zip(sides, masks, self.poolers, strict=True):
            assert side is not None
            count = mask.sum(dim=1, keepdim=True)
            mean = (side * mask[..., None]).sum(dim=1) / count.clamp(min=1)
            pooled.append(pooler(mean).tanh() * (count > 0))
        return pooled

    def _layers(self, k: int, given: Padded, mask: Tensor) -> Tensor:
        """The encoder layers of a side, `[n, L, T, width]`."""
        filled = self.standards[k](Padded(given.values, mask).filled())
        count = self.layers[k]
        each = filled.unflatten(-1, (count, -1)).transpose(1, 2)
        return self.dropout(self.maps[k](each)) + self.types[k] + self.places[-count:, None]


def _others(k: int, tokens: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The tokens of all sides but one, and which of them are there."""
    others = [i for i in range(len(tokens)) if i != k]
    if not others:
        return tokens[k][:, :0], masks[k][:, :0]
    return torch.cat([tokens[i] for i in others], 1), torch.cat([masks[i] for i in others], 1)


def _manager(name: str, layers: int, width: int, at: int, depth: int) -> Manager:
    """The manager of cross-modal layer `at`."""
    if name == "last":
        return Bridge(width, -1)
    if name == "bridge":
        return Bridge(width, max(0, layers - depth + at))
    if name == "static" or at == 0:
        return StaticManager(layers, width, first=at == 0)
    return AdaptiveManager(layers, width)


def _check(
    inputs: Mapping[str, int],
    manager: str,
    layers: Mapping[str, int],
    depth: int,
    width: int,
    heads: int,
) -> None:
    if manager not in MANAGERS:
        raise ConfigError(
            f"The fuser 'cross' has no manager '{manager}'.", f"Known: {', '.join(MANAGERS)}."
        )
    if min(layers.values()) < 1 or depth < 1 or heads < 1 or width % heads:
        raise ConfigError(
            f"The fuser 'cross' has layers={layers}, depth={depth}, heads={heads}, width={width}.",
            "There is one layer or more of either kind, and heads divides width.",
        )
    for modality, given in inputs.items():
        if given % layers[modality]:
            raise ConfigError(
                f"A token of {modality} is {given} wide, which is not {layers[modality]} layers "
                "of one width."
            )
