"""The classes that users and plugins subclass: Encoder, Adapter, Mixup, Objective, Aligner,
Scorer, …"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fusemix_core.adapter import Adapter, TokenAdapter, input_of, takes_tokens
from fusemix_core.batch import Batch
from fusemix_core.context import Callback, FitContext
from fusemix_core.correction import Correction, CorrectionPairs
from fusemix_core.data.dataset import Rejected
from fusemix_core.data.media import Medium
from fusemix_core.data.rows import Note, Reader, Row
from fusemix_core.encoder import Encoder, Network
from fusemix_core.errors import ConfigError
from fusemix_core.followers import Followers
from fusemix_core.fuser import Fitted, Fuser, Labelled
from fusemix_core.generator import Generator
from fusemix_core.measured import Measured
from fusemix_core.mixup import Mixup
from fusemix_core.padded import Padded, as_rows, as_tokens, cat_latents
from fusemix_core.paired import LatentTable, PairedLatents, ResidentLatents, rows_of
from fusemix_core.prediction import Calibration, Targets, Task
from fusemix_core.reranker import Reranker
from fusemix_core.sections import Section, numbers_of
from fusemix_core.specs import USES
from fusemix_core.step import Step
from fusemix_core.vectors import Index

if TYPE_CHECKING:
    from fusemix_core.config import Recipe

__all__ = [
    "USES",
    "Adapter",
    "Aligner",
    "Batch",
    "Calibration",
    "Callback",
    "Correction",
    "CorrectionPairs",
    "Encoder",
    "Evaluator",
    "FitContext",
    "Fitted",
    "Followers",
    "Fuser",
    "Generator",
    "Index",
    "Labelled",
    "LatentTable",
    "Measured",
    "Medium",
    "Mixup",
    "Network",
    "Note",
    "Objective",
    "Padded",
    "PairedLatents",
    "Reader",
    "Rejected",
    "Reranker",
    "ResidentLatents",
    "Row",
    "Scorer",
    "Section",
    "Selector",
    "Step",
    "Targets",
    "Task",
    "TokenAdapter",
    "as_rows",
    "as_tokens",
    "cat_latents",
    "dim_in",
    "input_of",
    "rows_of",
    "takes_tokens",
]


class Objective(nn.Module, ABC):
    """The loss of a training step. It normalises embeddings and owns its temperature and chunks."""

    uses: tuple[str, ...] = ()
    """What it reads of a step beside `embeddings`, `links` and `present`: names of `USES`. The
    `ComponentSpec` says the same. One that wraps another sets `self.uses` to its own names and
    those of the other."""

    def start(  # noqa: B027  most learn nothing
        self,
        adapters: Mapping[str, Adapter],
        train: PairedLatents,
        validation: PairedLatents,
        context: FitContext,
    ) -> None:
        """Take what is needed from adapters and training pairs, once, before the first step.

        The same data give the same. Keep the results in parameters, buffers or modules, so that a
        checkpoint contains them. Choices are made on `validation` only. One that wraps another
        calls the other's `start`.

        Args:
            adapters: those that are trained, by modality, with their initial weights. The fixed
                ones are in `context.fixed`.
        """

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The scalar loss of the whole batch."""

    def log(self) -> Mapping[str, float | Tensor]:
        """Numbers to record beside the loss, such as the temperature.

        A tensor of one number is best left one: `.item()` in each step makes the CPU wait for the
        GPU. It is copied at once, so it may be a parameter.
        """
        return {}


def dim_in(adapter: Adapter | type[Adapter], table: LatentTable) -> int:
    """The `dim_in` of an adapter, or of its class, for the latents of a table: the width of a row,
    or of a token for a `TokenAdapter`."""
    return table.shape[-1] if takes_tokens(adapter) else table.dim


class Aligner(ABC):
    """Fits one adapter per modality, by gradient or in closed form."""

    uses: tuple[str, ...] = ()
    """`("fixed",)` if `fit` heeds `FitContext.fixed`: it returns those adapters unchanged and fits
    only the others, to their width. One that does not is never given any. The `ComponentSpec` says
    the same."""

    @abstractmethod
    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> Mapping[str, Adapter]:
        """Adapters by modality, in eval mode on the CPU. Choices are made on `validation` only."""


class Selector(ABC):
    """Chooses the pairs to fit on; constructed as `Selector(**options)`.

    An option `by` is a modality: the one whose items it looks at, "" for the first.
    """

    uses: tuple[str, ...] = ()
    """`("latents",)` if it looks at latents. One that does not is given pairs without tables unless
    something else needs them: nothing is encoded for it. The `ComponentSpec` says the same."""

    fewer: str = ""
    """Why it may give fewer rows than it is asked for, as the end of a sentence for the user: "only
    300 of 500 pairs were chosen: …". One without always gives as many."""

    @abstractmethod
    def select(self, pairs: PairedLatents, k: int, context: FitContext) -> Tensor:
        """Rows of `pairs.links`, int64 CPU `[k]` or fewer, all different, in the order taken.

        What is drawn is drawn by `context.seed`. Latents are read in chunks of 32,768 rows at most:
        the tables may be larger than memory. Raises `ConfigError` unless k is from 0 to
        `len(pairs)`.
        """


class Scorer(ABC):
    """Turns embeddings into scores; constructed as `Scorer(**options)`.

    State that the fit leaves (a bank of training embeddings) is in `tensors`, which a saved model
    contains, by name.
    """

    def fit(self, train: Mapping[str, Tensor]) -> None:  # noqa: B027  most learn nothing
        """Take what is needed from the unit-norm training embeddings, modality → `[n, d]`."""

    def extend(self, train: Mapping[str, Tensor]) -> None:
        """Take in further modalities, as `fit`; the scores of those it has stay as they are.

        Raises `NotImplementedError` where a scorer that holds tensors has not overridden this.
        """
        if self.tensors:
            raise NotImplementedError(f"{type(self).__name__} can't take in further modalities")

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {}

    @tensors.setter
    def tensors(self, value: Mapping[str, Tensor]) -> None:
        if value:
            raise ValueError(f"{type(self).__name__} contains no tensors")

    @abstractmethod
    def score(self, queries: Tensor, gallery: Tensor, query: str, target: str) -> Tensor:
        """Scores `[n, m]` of unit-norm queries `[n, d]` of modality `query` and gallery `[m, d]`
        of modality `target`; larger is closer.

        Rows may be on any device: tensors that the scorer contains go to theirs.
        """

    def prepare(self, gallery: Tensor, query: str, target: str) -> Callable[[Tensor], Tensor]:
        """`score` against a fixed gallery, as a function of the queries. Override it where part of
        the work depends only on the gallery."""
        return lambda queries: self.score(queries, gallery, query, target)

    def lift(self, rows: Tensor, modality: str, against: Sequence[str], gallery: bool) -> Tensor:
        """Vectors whose inner product ranks a gallery as `score` does, for any vector index.

        Override it if a scorer can be written that way. Columns may be added after those of the
        rows: a lifted gallery serves queries of every modality in `against`.

        Args:
            rows: unit-norm embeddings `[n, d]`.
            modality: theirs.
            against: the modalities of queries that the index serves, in one fixed order.
            gallery: whether the rows are searched; otherwise they are queries of a modality in
                `against`.

        Returns:
            float32 `[n, d + K]`. K depends on the scorer and on the length of `against`.

        Raises:
            ConfigError: the scorer can't be written as an inner product.

        Example:
            asked = scorer.lift(texts, "text", ["text"], gallery=False)
            found = (asked @ scorer.lift(images, "image", ["text"], gallery=True).T).topk(10)
        """
        raise ConfigError(
            f"The scorer {type(self).__name__} can't be served by an inner-product index.",
            "Fit with one that can: --set scorer=cosine or --set scorer=csls. Without an index, "
            "`fusemix search RUN --data …` works with every scorer.",
        )

    def mapped(self, basis: Tensor) -> Scorer:
        """This scorer for embeddings that are mapped to fewer dimensions, or turned: `[n, d]` to
        unit-norm rows of `embeddings @ basis`.

        Override it if the scorer keeps tensors that are embeddings: it maps them likewise.

        Args:
            basis: `[d, k]` of orthonormal columns.

        Raises:
            ConfigError: the scorer works on whole embeddings only.
        """
        if self.tensors:
            raise ConfigError(
                f"The scorer {type(self).__name__} works on whole embeddings only.",
                "Fit with one that takes fewer dimensions: --set scorer=cosine or scorer=csls.",
            )
        return self


class Evaluator(ABC):
    """Measures a fused model on a split; constructed as `Evaluator(**options)`.

    Its result is in `results.json` and the model card under its registered name, and its
    sections are in the report and on the terminal.

    Example:
        class Spread(Evaluator):
            def __call__(self, data):
                return {m: rows.var(0).sum().item() for m, rows in data.embeddings.items()}
    """

    uses: tuple[str, ...] = ()
    """Its needs of `Measured` that not every job has: `bank`, `classes`, `facts`. A job without
    it refuses the evaluator before anything is encoded. The `ComponentSpec` says the same. One
    whose options decide sets `self.uses`."""

    @abstractmethod
    def __call__(self, data: Measured) -> Mapping[str, Any]:
        """Measure a split.

        Args:
            data: embeddings, links, scores and items. They stay as they are.

        Returns:
            Metrics as JSON can store them: finite numbers, texts, lists, nested mappings, None for
            a number that there is none of. `NAME_interval: [low, high]` is the interval of `NAME`.

        Raises:
            DataError: the split has nothing to measure.
        """

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> Sequence[Section]:
        """The sections of the report and the terminal; by default a table of all numbers.

        Args:
            metrics: what this evaluator returned for `data`.
            data: what was measured.
        """
        return [numbers_of(metrics)]
