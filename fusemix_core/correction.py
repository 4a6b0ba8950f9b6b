"""The class that corrections of conditions subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.context import FitContext
from fusemix_core.errors import ConfigError


@dataclass(frozen=True)
class CorrectionPairs:
    """Training items of two modalities, for a correction to learn from.

    Attributes:
        rows: unit-norm embeddings of one modality, `[n, d]`.
        latents: the latents of the fixed modality's item of the same pair, `[n, d]`.
        known: the latents of all of the fixed modality's training items, each once, `[m, d]`.
    """

    rows: Tensor
    latents: Tensor
    known: Tensor


class Correction(ABC):
    """Brings embeddings of a modality to where the latents of a fixed one are, as a generator
    expects these; constructed as `Correction(**options)`.

    For each pair of modalities it keeps tensors, which a saved model contains. They may contain
    training items only if the `ComponentSpec` says `keeps_items`.

    Example:
        class Longer(Correction):
            def learn(self, pairs, context):
                return {"length": pairs.latents.norm(dim=1).mean()}

            def apply(self, rows, learnt, seeds, bank=None):
                return rows * learnt["length"]
    """

    def __init__(self) -> None:
        self.options: dict[str, object] = {}
        self.learnt: dict[tuple[str, str], dict[str, Tensor]] = {}

    @abstractmethod
    def learn(self, pairs: CorrectionPairs, context: FitContext) -> Mapping[str, Tensor]:
        """Learn from training pairs: tensors by name (without a dot). The same pairs and seed give
        the same tensors."""

    @abstractmethod
    def apply(
        self,
        rows: Tensor,
        learnt: Mapping[str, Tensor],
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        """Rows as latents of the fixed modality, in their lengths; row i from row i and seed i.

        Args:
            rows: unit-norm embeddings `[n, d]`.
            learnt: what `learn` returned; empty if there were no pairs, and `bank` is given.
            seeds: one per row, for random numbers.
            bank: latents of the fixed modality that the generator was trained on, if it brings any.
        """

    def fit(self, source: str, target: str, pairs: CorrectionPairs, context: FitContext) -> None:
        """Learn from training pairs of a modality and a fixed one."""
        found = self.learn(pairs, context)
        self.learnt[source, target] = {k: v.detach().cpu() for k, v in found.items()}

    def knows(self, source: str, target: str) -> bool:
        """Whether it has learnt of these two modalities."""
        return (source, target) in self.learnt

    @torch.no_grad()
    def __call__(
        self,
        rows: Tensor,
        source: str,
        target: str,
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        """Embeddings `[n, d]` of `source` as latents of `target`; see `apply`.

        Raises:
            ConfigError: it has learnt nothing of these two.
        """
        if not self.knows(source, target) and bank is None:
            raise ConfigError(f"{type(self).__name__} has learnt nothing of {source} and {target}.")
        rows = normalize(rows.float(), dim=1)
        return self.apply(rows, self.learnt.get((source, target), {}), seeds, bank)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """`SOURCE.TARGET.NAME` → tensor."""
        return {
            f"{source}.{target}.{name}": value
            for (source, target), found in self.learnt.items()
            for name, value in found.items()
        }

    @tensors.setter
    def tensors(self, value: Mapping[str, Tensor]) -> None:
        self.learnt = {}
        for key, tensor in value.items():
            source, target, name = key.split(".")
            self.learnt.setdefault((source, target), {})[name] = tensor


def length_of(latents: Tensor) -> Tensor:
    """The mean length of rows, a tensor of one number."""
    return latents.float().norm(dim=1).mean()
