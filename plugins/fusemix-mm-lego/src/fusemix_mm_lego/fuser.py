"""`lego`: MM-Lego as a fuser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fusemix_core.config import Training
from fusemix_core.engine.randomness import seeded
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample, trained
from fusemix_core.interfaces import FitContext, Padded, Task
from fusemix_core.modules import Modules
from fusemix_mm_lego.blocks import Block, Head
from fusemix_mm_lego.fusing import stacked, woven
from fusemix_mm_lego.merging import HEADS, MERGES, merged, merged_heads

MODES, FUSES = ("merge", "fuse"), ("stack", "weave")


class LegoFuser(TrainedFuser[Padded]):
    """A block per modality, each trained by itself on the rows that have it. No row needs two.

    With `mode="merge"` the blocks' latents and heads are then merged, without further training. A
    modality that is missing from a row is left out of that row's merge. With `mode="fuse"` the
    blocks become one network, which is trained on for a few epochs.

    Args:
        inputs, outputs, mix, drop: as in `TrainedFuser`.
        mode: `merge` or `fuse`.
        merge: how latents are merged: `mean`, `sum`, `product` or `harmonic`.
        heads_by: how heads are merged: `slerp`, `linear`, or `published`, the original's slerp.
        fuse: `stack`, each block begins with the latent of the one before; `weave`, the latent
            reads the modalities in turn.
        fuse_epochs: of the training of all blocks together.
        frequency: whether blocks work in the frequency domain.
        width: tokens that are wider go through a linear map to this width first; 0 for none.
        channels, latent_width, depth, heads, head_width: as in `Block`. The paper's are 64, 64, 2,
            8 and 64.
        training: as in `TrainedFuser`, of each block.

    Raises:
        ConfigError: an option is not one of these.

    Example:
        LegoFuser.fit(train, validation, task, FitContext(), mode="fuse").fuser
    """

    uses = ("tokens",)
    settings: ClassVar[Training] = replace(TrainedFuser.settings, epochs=20)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        mode: str = "merge",
        merge: str = "mean",
        heads_by: str = "slerp",
        fuse: str = "stack",
        fuse_epochs: int = 5,
        frequency: bool = True,
        width: int = 64,
        channels: int = 16,
        latent_width: int = 32,
        depth: int = 2,
        heads: int = 4,
        head_width: int = 16,
        mix: float = 0.4,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        for name, value, known in (
            ("mode", mode, MODES),
            ("merge", merge, MERGES),
            ("heads_by", heads_by, tuple(HEADS)),
            ("fuse", fuse, FUSES),
        ):
            if value not in known:
                raise ConfigError(
                    f"The fuser 'lego' has no {name} '{value}'.", f"Known: {', '.join(known)}."
                )
        self.mode, self.merge, self.heads_by = mode, merge, heads_by
        self.fuse, self.fuse_epochs, self.depth = fuse, fuse_epochs, depth
        widths = [min(d, width) if width else d for d in inputs.values()]
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(
            nn.Identity() if d == w else nn.Linear(d, w)
            for d, w in zip(inputs.values(), widths, strict=True)
        )
        self.blocks = Modules(
            Block(
                w,
                outputs,
                channels=channels,
                latent_width=latent_width,
                depth=depth,
                heads=heads,
                head_width=head_width,
                frequency=frequency,
            )
            for w in widths
        )
        for block in self.blocks[1:]:
            _start_alike(self.blocks[0], block)
        self.head = Head(latent_width, outputs) if mode == "fuse" else None

    def prepare(self, train: Labelled) -> None:
        for modality, standard in zip(self.inputs, self.standards, strict=True):
            standard.learn(sample(train, modality))

    @classmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        train, validation = train.as_taken_by(cls), validation.as_taken_by(cls)
        with seeded(context.seed, context.device):
            fuser = cls(cls.widths(train), task.outputs, **options)
            fuser.prepare(train)
        for k, modality in enumerate(train.modalities):
            own = _stage(context, f"block-{k + 1}", f"the block of {modality}")
            fuser._train_block(k, train, validation, task, own)
        if fuser.head is not None:
            fuser.head.load_state_dict(merged_heads(fuser._heads, fuser.heads_by))
            own = _stage(context, "fused", "all blocks together")
            with seeded(context.seed, context.device):
                more = {"epochs": fuser.fuse_epochs, "score_start": True}
                fuser = trained(fuser, train, validation, task, own, **more)
        fuser.calibrate(validation, task)
        return Fitted(fuser.eval())

    def _train_block(
        self, k: int, train: Labelled, validation: Labelled, task: Task, context: FitContext
    ) -> None:
        """Train the block of one modality on the rows that have it, as a fuser of one modality."""
        modality = train.modalities[k]
        with seeded(context.seed, context.device):
            options: dict[str, Any] = {**self.options, "mode": "merge"}
            one = type(self)({modality: self.inputs[modality]}, self.outputs, **options)
            for name in ("standards", "maps", "blocks"):
                getattr(one, name)[0].load_state_dict(getattr(self, name)[k].state_dict())
            own, held = (part.only([modality]) for part in (train, validation))
            one = trained(one, own, held, task, context)
        for name in ("maps", "blocks"):
            getattr(self, name)[k].load_state_dict(getattr(one, name)[0].state_dict())

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        inputs, masks = self._tokens(latents, present)
        if self.head is None:
            found = [b(x, mask) for b, x, mask in zip(self.blocks, inputs, masks, strict=True)]
            return self._scored(merged(torch.stack(found), present, self.merge), present)
        blocks = list(self.blocks)
        if self.fuse == "stack":
            return self.head(stacked(blocks, inputs, masks, present))
        start = torch.stack([block.latent for block in blocks]).mean(dim=0)
        return self.head(woven(blocks, inputs, masks, present, start, self.depth))

    def _tokens(
        self, latents: Mapping[str, Padded], present: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens and masks of each modality. A row without any has one that is zero before the
        map."""
        inputs, masks = [], []
        for k, modality in enumerate(self.inputs):
            mask = latents[modality].mask & present[:, k, None]
            given = Padded(latents[modality].values, mask)
            tokens = self.standards[k](given.filled()) * mask[..., None]
            first = torch.arange(mask.shape[1], device=mask.device) == 0
            inputs.append(self.maps[k](tokens))
            masks.append(torch.where(mask.any(dim=1, keepdim=True), mask, first))
        return inputs, masks

    def _scored(self, latent: Tensor, present: Tensor) -> Tensor:
        """Scores of merged latents `[n, c, d]`, by the merged heads of each row's modalities."""
        bits = 1 << torch.arange(present.shape[1], device=present.device)
        subsets = (present * bits).sum(dim=1)
        scores = self._heads[0].out.weight.new_zeros(len(present), self.outputs)
        for number in subsets.unique().tolist():
            rows = (subsets == number).nonzero()[:, 0]
            heads = [head for k, head in enumerate(self._heads) if number >> k & 1]
            weights = merged_heads(heads, self.heads_by)
            scores[rows] = functional_call(heads[0], weights, latent[rows])
        return scores

    @property
    def _heads(self) -> list[Head]:
        return [block.head for block in self.blocks]


@torch.no_grad()
def _start_alike(first: Block, other: Block) -> None:
    """Give a block the first weights of another one, if these have the same shape."""
    own = dict(other.named_parameters())
    for name, value in first.named_parameters():
        if own[name].shape == value.shape:
            own[name].copy_(value)


def _stage(context: FitContext, name: str, what: str) -> FitContext:
    """The surroundings of one of several trainings."""
    for callback in context.callbacks:
        callback.on_stage(f"training {what}")
    folder = context.checkpoints
    return replace(context, checkpoints=None if folder is None else folder / name)
