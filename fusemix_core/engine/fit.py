"""The object of a trainer: modules, the loss of a step, a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor, nn

from fusemix_core.interfaces import Adapter, Batch, Step
from fusemix_core.numerics import Precision

M = TypeVar("M", bound=nn.Module)

ENOUGH = "enough"
"""The metric by which a fit's `validate` ends training early."""

NOISE = "noise"
"""The metric that says by how much a score must rise for `Training.patience` to start anew."""


class Fit(ABC, Generic[M]):
    """The modules that a `Trainer` trains, and their score. Checkpoints, resuming, averages of
    weights, interrupts and several processes are the trainer's.

    Args:
        modules: what is trained, averaged, scored and kept, by name.
        objective: a module that is trained beside them and not kept, such as a loss with a
            temperature.
        fixed: what a step needs and nobody trains, by name: in eval mode, in no checkpoint.

    Example:

        class Linear(Fit):
            uses = ("latents", "facts")

            def __init__(self, train, validation):
                self.validation = validation
                super().__init__({"head": nn.Linear(train.dims["image"], 10)})

            def loss(self, step):
                logits = self.modules["head"](step.latents["image"])
                return cross_entropy(logits, step.facts["label"][:, 0])

            def validate(self, modules):
                batch = self.validation.batch(torch.arange(len(self.validation)))
                found = modules["head"](batch.latents["image"]).argmax(dim=1)
                right = found == batch.facts["label"][:, 0]
                return {"score": right.double().mean().item()}
    """

    uses: tuple[str, ...] = ()
    """What `loss` reads of a step, as an objective's `uses`."""

    reader: str = "The fit"
    """Who reads, for the error about what is not declared."""

    least: float | None = None
    """The score that weights must exceed, by its noise, before they count for patience."""

    precision: Precision = Precision()
    """The precision of the fit; the trainer sets it."""

    def __init__(
        self,
        modules: Mapping[str, M],
        objective: nn.Module | None = None,
        fixed: Mapping[str, M] | None = None,
    ) -> None:
        self.modules = dict(modules)
        self.objective = nn.Module() if objective is None else objective
        self.fixed = dict(fixed or {})

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """The modules that the embeddings of a step go through, by modality; none unless
        overridden."""
        return {}

    def step(self, batch: Batch, number: int = 0, progress: float = 0.0) -> Step:
        """The step of a batch that every process has."""
        return Step(
            batch,
            self.adapters,
            fixed=self.fixed,
            uses=self.uses,
            reader=self.reader,
            number=number,
            progress=progress,
            precision=self.precision,
        )

    @abstractmethod
    def loss(self, step: Step) -> Tensor:
        """The scalar loss of the whole batch, in each process.

        The adapters of a step run in the precision of the fit. Modules that are called here run in
        float32, unless they are called inside `step.precision.adapters()`.
        """

    @abstractmethod
    def validate(self, modules: Mapping[str, M]) -> Mapping[str, float]:
        """Metrics of these modules on the validation split, without gradient.

        Called in only the first process. `score` chooses the weights that are kept: more is
        better. Without it, the last ones are kept. Two more are optional: `noise`, the least
        rise of the score that counts for the recipe's patience, and `enough`, which ends training
        if it is true. The modules stay in the mode they are in.

        Args:
            modules: those of the fit by name, or their averages.
        """

    def expected_steps(self, most: int) -> int | None:
        """How many steps training takes, `most` of them; None if nobody can know."""
        return most

    def log(self) -> Mapping[str, float | Tensor]:
        """Numbers to record beside the loss; see `Objective.log`."""
        return {}
