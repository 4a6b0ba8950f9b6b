"""Copies of modules that follow the trained ones: a moving average of their weights."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Followers(nn.Module, Generic[M]):
    """Copies of modules, in eval mode and without gradient, that follow the trained modules.

    An objective makes them in `Objective.start` and owns them: they are part of its state, so
    checkpoints hold them. It calls `follow` in each step, and `step.through(self.followers)` gives
    the embeddings of the copies.

    Args:
        modules: by name, such as the adapters by modality. They stay as they are.
        momentum: the share of its old weights that a copy keeps in each `follow`, in [0, 1).

    Example:
        def start(self, adapters, train, validation, context):
            self.followers = Followers(adapters, momentum=0.995)

        def forward(self, step):
            self.followers.follow(step.adapters)
            targets = step.through(self.followers)
    """

    def __init__(self, modules: Mapping[str, M], momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.by_name = {name: deepcopy(m).requires_grad_(False) for name, m in modules.items()}
        self.copies = nn.ModuleList(self.by_name.values())
        self.eval()

    def train(self, mode: bool = True) -> Followers[M]:
        """The copies stay in eval mode, whatever the mode of who owns them."""
        return super().train(False)

    def follow(self, modules: Mapping[str, nn.Module], momentum: float | None = None) -> None:
        """Move each copy towards the module of its name: m · copy + (1 - m) · module.

        Args:
            modules: the trained modules; more than were copied may be given.
            momentum: m for this call, by default that of the constructor.
        """
        share = 1 - (self.momentum if momentum is None else momentum)
        with torch.no_grad():
            for name, copy in self.items():
                _move(copy, modules[name], share)

    def __getitem__(self, name: str) -> M:
        return self.by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def items(self) -> ItemsView[str, M]:
        """(name, copy) of each module."""
        return self.by_name.items()


def _move(copy: nn.Module, module: nn.Module, share: float) -> None:
    """Parameters move by `share` of the way; buffers are taken over."""
    for kept, new in zip(copy.parameters(), module.parameters(), strict=True):
        kept.lerp_(new, share)
    for kept, new in zip(copy.buffers(), module.buffers(), strict=True):
        kept.copy_(new)
