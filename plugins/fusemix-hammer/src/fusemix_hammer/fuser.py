"""`hammer`: HAMMER's multimodal encoder and heads on the tokens of frozen encoders."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusemix_core.config import Training
from fusemix_core.context import FitContext
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import Followers
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded
from fusemix_core.prediction import Targets, Task
from fusemix_hammer.heads import ManipulationHeads
from fusemix_hammer.layers import Layer, Side, Unimodal
from fusemix_hammer.layout import Layout, Parts
from fusemix_hammer.objective import HammerObjective
from fusemix_hammer.task import Manipulation

QUEUE, DIM = 1024, 128
"""Rows that the contrast remembers, and the width of its embeddings."""


class HammerFuser(TrainedFuser[Padded]):
    """HAMMER (arXiv 2304.02556) on cached tokens: each side through self attention, the text's
    tokens with attention to the other side's, and the paper's heads. With another task than
    `manipulation` the scores are a linear map of the fused cls.

    Training adds the manipulation-aware contrast of both sides' cls to the task's loss: fakes are
    negatives of others, and pull nothing together. It is left out of the saved model.

    Args:
        inputs, outputs, drop, training: as in `TrainedFuser`.
        width, heads, dropout: of the layers.
        own: layers of each side by itself.
        depth: layers in which the text sees the other side.
        contrast: the weight of the contrast; 0 leaves it out.
        local: whether the box comes from the image's patches, as a query that has seen the text
            sums them; else from the image's cls.
        fused: whether words are judged by tokens that have seen the image; else by the text's own.
        text: the modality that asks; the task decides.
        kinds, words: of the task, which decides them; without kinds the scores are another task's.

    Raises:
        ConfigError: a number of layers or heads, or the weight, is out of range.
    """

    uses = ("tokens",)
    settings: ClassVar[Training] = Training(
        epochs=16,
        batch_size=64,
        lr=1e-3,
        weight_decay=0.02,
        warmup_steps=50,
        clip_norm=1.0,
        evaluate_every=2,
        patience=3,
        precision="float32",
        compile="off",
    )

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        width: int = 128,
        heads: int = 4,
        own: int = 1,
        depth: int = 2,
        dropout: float = 0.1,
        contrast: float = 0.1,
        local: bool = True,
        fused: bool = True,
        text: str = "text",
        kinds: int = 0,
        words: int = 0,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, 0.0, drop, training)
        if min(own, depth, contrast) < 0 or heads < 1 or width % heads:
            raise ConfigError(
                f"The fuser 'hammer' has own={own}, depth={depth}, contrast={contrast}, "
                f"heads={heads} and width={width}.",
                "None is below 0, and heads divides width.",
            )
        self.weight, self.local, self.fused = contrast, local, fused
        self.unimodal = Unimodal(inputs, text, width, heads, dropout, own, DIM)
        self.crossed = Modules(Layer(width, heads, dropout, crossed=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.layout = Layout(kinds, words) if kinds else None
        self.heads = ManipulationHeads(width, heads, kinds) if kinds else None
        self.head = None if kinds else nn.Linear(width, outputs)
        self.objective: HammerObjective | None = None
        self.followers: Followers[Unimodal] | None = None

    @classmethod
    def suited(cls, task: Task) -> dict[str, Any]:
        if not isinstance(task, Manipulation):
            return {}
        layout = task.layout
        return {"text": task.modality, "kinds": layout.kinds, "words": layout.length}

    @classmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        found = super().fit(train, validation, task, context, **options)
        for name in ("objective", "followers"):
            setattr(found.fuser, name, None)
        return found

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.unimodal.standards, strict=True):
            standard.learn(sample(train, modality))
        if self.weight and self.layout is not None:
            self.objective = HammerObjective(queue=QUEUE, warmup=50)
            self.followers = Followers({"both": self.unimodal}, self.objective.momentum)

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        return self._scores(*self.unimodal(latents, present))

    def trained_on(
        self, latents: Mapping[str, Padded], present: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor | None]:
        sides = self.unimodal(latents, present)
        scores = self._scores(*sides)
        if self.objective is None or self.followers is None:
            return scores, None
        self.followers.follow({"both": self.unimodal})
        with torch.no_grad():
            copy = self.followers["both"]
            followed = copy.embeddings(copy(latents, present))
        there = self.unimodal.there(present)
        trust = 1 - targets.values[:, 1] * targets.known[:, 1]
        own = self.unimodal.embeddings(sides)
        loss = self.objective.contrasted(own, followed, trust, there, there.cpu())
        return scores, self.weight * loss

    def _scores(self, text: Side, seen: Side) -> Tensor:
        fused = text
        for layer in self.crossed:
            fused = layer(fused, seen)
        tokens = self.norm(fused.tokens)
        if self.head is not None:
            return self.head(tokens[:, 0])
        heads, layout = self.heads, self.layout
        assert heads is not None and layout is not None  # there are kinds
        place = seen.tokens[:, 0]
        if self.local and seen.tokens.shape[1] > 1:  # there are patches
            place = heads.place(seen.tokens, text.tokens, text.mask, seen.mask)
        words = heads.token_head((tokens if self.fused else text.tokens)[:, 1:])
        parts = Parts(
            heads.binary_head(tokens[:, 0]),
            heads.multi_head(tokens[:, 0]),
            heads.box_head(place),
            words * text.mask[:, 1:, None],
        )
        return layout.joined(parts)
