"""`Fuser`: the latents of several modalities, and which of them are there, to the scores of a
task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from fusemix_core.context import FitContext
from fusemix_core.padded import Padded
from fusemix_core.paired import PairedLatents
from fusemix_core.prediction import Targets, Task

L = TypeVar("L", bound=Tensor | Padded)


@dataclass(frozen=True)
class Labelled:
    """Rows with a target.

    Attributes:
        pairs: latents by modality, and the links of n rows; each links one item or more.
        targets: of these rows.
        groups: int64 CPU `[n]`: rows of one number are of one patient, document or the like, and
            are left out together.
        computed: what fusers found of exactly these rows, for others that are fitted to them.
    """

    pairs: PairedLatents
    targets: Targets
    groups: Tensor
    computed: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.pairs.modalities

    @cached_property
    def present(self) -> Tensor:
        """bool CPU `[n, K]`: which modalities each row has."""
        return self.pairs.links >= 0

    def select(self, rows: Tensor) -> Labelled:
        """The rows `rows`, int64 CPU, in that order."""
        return replace(
            self,
            pairs=self.pairs.select(rows),
            targets=self.targets[rows],
            groups=self.groups[rows],
        )

    def as_taken_by(self, fuser: Fuser | type[Fuser]) -> Labelled:
        """The same rows, whose latents come in the form that a fuser takes: rows or tokens."""
        tokens = self.modalities if "tokens" in fuser.uses else ()
        return replace(self, pairs=self.pairs.with_tokens(tokens))

    def with_links(self, links: Tensor) -> Labelled:
        """The same rows with other items, int64 CPU `[n, K]`."""
        return replace(self, pairs=replace(self.pairs, links=links))

    def only(self, modalities: Sequence[str]) -> Labelled:
        """The same with these modalities, without the rows that have none of them."""
        pairs = self.pairs.only(modalities)
        rows = (pairs.links >= 0).any(dim=1).nonzero()[:, 0]
        return replace(self, pairs=pairs).select(rows)

    def latents(self, modality: str) -> Tensor | Padded:
        """The latents of a modality, float32 `[n, d]` or tokens, zeros if it is missing."""
        return self.pairs.only([modality]).batch(torch.arange(len(self))).latents[modality]

    def has_exactly(self, modalities: Collection[int]) -> Tensor:
        """bool `[n]`: the rows that have these modalities, by number, and no other."""
        wanted = torch.tensor([k in modalities for k in range(self.present.shape[1])])
        return (self.present == wanted).all(dim=1)

    def left_out_together(self) -> list[Tensor]:
        """int64: the rows of each group that has two or more."""
        order = self.groups.argsort(stable=True)
        counts = self.groups[order].unique_consecutive(return_counts=True)[1]
        return [rows for rows in order.split(counts.tolist()) if len(rows) > 1]


@dataclass(frozen=True)
class Fitted:
    """A fuser that was fitted.

    Attributes:
        fuser: in eval mode on the CPU.
        scores: `[n, C]` of its training rows, by fits that left out each row with its group; None
            if there are none.
        parts: modality → such scores by only that modality; of rows that lack it, anything.
    """

    fuser: Fuser
    scores: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def left_out(self) -> Tensor:
        """The `scores` of a fuser that has them."""
        assert self.scores is not None, f"{type(self.fuser).__name__} leaves out no rows"
        return self.scores


class Fuser(nn.Module, ABC, Generic[L]):
    """Turns the latents of several modalities into the scores of a task.

    Constructed as `Fuser(inputs, outputs, **options)` with plain values: `inputs` maps each
    modality to the width of its latents (of a row, or of a token if the class takes tokens), and
    `outputs` is the number of scores. These and the weights are all that a saved model contains.

    `Fuser[Tensor]` takes rows, `Fuser[Padded]` tokens.

    Every non-empty subset of the modalities gives scores, and a modality that is missing from a row
    can't change that row's scores, whatever its latents contain.

    Example:
        class Mean(Fuser[Tensor]):
            def __init__(self, inputs, outputs):
                super().__init__(inputs, outputs)
                heads = [torch.nn.Linear(width, outputs) for width in inputs.values()]
                self.heads = torch.nn.ModuleList(heads)

            def forward(self, latents, present):
                each = [head(latents[m]) for head, m in zip(self.heads, self.inputs)]
                weights = present / present.sum(dim=1, keepdim=True)
                return sum(w[:, None] * s for w, s in zip(weights.T, each))
    """

    uses: tuple[str, ...] = ()
    """`("tokens",)` if latents are taken as `as_tokens` makes them; otherwise as `as_rows` does.
    The `ComponentSpec` says the same."""

    closed: ClassVar[bool] = False
    """Whether `fit` looks at no validation row, so that all rows may be for training."""

    options: dict[str, Any]

    def __new__(cls, *shape: Any, **options: Any) -> Self:
        fuser = super().__new__(cls)
        vars(fuser)["options"] = options
        return fuser

    def __init__(self, inputs: Mapping[str, int], outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = dict(inputs), outputs

    @classmethod
    @abstractmethod
    def fit(
        cls,
        train: Labelled,
        validation: Labelled,
        task: Task,
        context: FitContext,
        **options: Any,
    ) -> Fitted:
        """A fuser fitted to `train`. Choices are made on `validation`, or by leaving out training
        rows, only."""

    @abstractmethod
    def forward(self, latents: Mapping[str, L], present: Tensor) -> Tensor:
        """Scores float32 `[n, outputs]`.

        Args:
            latents: modality → `[n, d]`, or `Padded`; anything where a modality is missing.
            present: bool `[n, K]` in the order of `inputs`; each row has one modality or more.
        """
