"""The classes that users and plugins subclass: Encoder, Adapter, Mixup, Objective, Aligner,
Scorer, …"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from fusemix_core.adapter import Adapter, TokenAdapter, input_of, takes_tokens
from fusemix_core.batch import Batch
from fusemix_core.context import Callback, FitContext
from fusemix_core.data.dataset import Rejected
from fusemix_core.data.media import Medium
from fusemix_core.data.rows import Note, Reader, Row
from fusemix_core.errors import ConfigError
from fusemix_core.followers import Followers
from fusemix_core.fuser import Fitted, Fuser, Labelled
from fusemix_core.measured import Measured
from fusemix_core.mixup import Mixup
from fusemix_core.padded import Padded, as_rows, as_tokens, cat_latents
from fusemix_core.paired import LatentTable, PairedLatents, ResidentLatents, rows_of
from fusemix_core.prediction import Calibration, Targets, Task
from fusemix_core.sections import Section, numbers_of
from fusemix_core.specs import USES, EncoderSpec
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
    "Encoder",
    "Evaluator",
    "FitContext",
    "Fitted",
    "Followers",
    "Fuser",
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


@dataclass(frozen=True)
class Network:
    """The part of `Encoder.encode` that any runtime can run: a module, in eval mode, that is called
    with tensors by name and returns one tensor `[n, …]`. `axes` are those axes of each input whose
    size differs from batch to batch, such as `(0, 1)` of tokens `[n, T]`."""

    module: nn.Module
    axes: tuple[int, ...] = (0,)


class Encoder(ABC):
    """A frozen unimodal model. Row i of its output is item i.

    A subclass sets `spec` (on the class, when it is one encoder) and implements `load`, `collate`
    and `encode`. Weights live in attributes that are `nn.Module`s: pickling an encoder for a worker
    process leaves these out, so that `collate` there needs none of them.

    It need not be safe in threads: `encode` is called by one thread at a time, and so is `collate`
    of texts.

    An encoder that gives its `network`, and lets `encode` reach it by `compute`, is run by a faster
    runtime than torch if there is one.
    """

    spec: EncoderSpec
    runtime: Callable[[str, dict[str, Tensor]], Tensor] | None = None
    """What `compute` calls with the view and the inputs in place of the network; set while a batch
    is encoded."""
    on_device: bool = False
    """Whether `encode` takes a batch whose tensors are on the encoder's device already. On a GPU
    they are then sent from pinned memory while the batch before is encoded."""

    @classmethod
    @abstractmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The encoder that `spec` describes, frozen, in eval mode, on `device` in `dtype`."""

    @classmethod
    def fit(cls, spec: EncoderSpec, items: Sequence[Any]) -> EncoderSpec:
        """Learn from training items: the spec with the findings in `options["learnt"]`.

        Called once, before `load`, if the spec is `fitted`. The findings are plain data (strings,
        finite numbers, booleans, None, lists and tables of these). They are part of the fingerprint
        and are saved with a model. `load` must build the same encoder from it, and treat it as data
        that a stranger may have written: name no file, address or class in it.

        Args:
            spec: as registered, with the options that the user set.
            items: decoded items of the training rows, each different one once, in order of
                appearance. Never an item that only held-out rows have.

        Raises:
            DataError: Nothing can be learnt from these items.

        Example:
            longest = max(map(len, items))
            return replace(spec, options={**spec.options, "learnt": {"longest": longest}})
        """
        return spec

    @classmethod
    def learnt(cls, spec: EncoderSpec) -> Sequence[str]:
        """The findings of a fitted spec, one line each, for plans and reports: "age: number, 3%
        missing"."""
        return ()

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random miniature that behaves like the real one and needs no download."""
        raise NotImplementedError(f"{cls.__name__} has no miniature")

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Any:
        """Decoded items (see `EncoderSpec.takes`) as one CPU batch. Runs in a worker.

        Raises TypeError for an item of the wrong type.
        """

    @abstractmethod
    def encode(self, batch: Any, view: str = "pooled") -> Tensor | Padded:
        """The latents of a batch: `[n, d]` for `pooled`, finite, no gradient, on any device.

        `view` is one of `spec.views`, which also says its shape. A view of which items have
        unequal lengths (`tokens` of texts, `time` of sounds) is `Padded`.
        """

    def network(self, view: str) -> Network | None:
        """What `encode` computes for the view, where another runtime may do so; else None."""
        return None

    def compute(self, view: str, **inputs: Tensor) -> Tensor:
        """What `network(view)` gives for these inputs, by the runtime in use; for `encode`."""
        if self.runtime is not None:
            return self.runtime(view, inputs)
        network = self.network(view)
        assert network is not None, f"{type(self).__name__} has no network for '{view}'"
        return network.module(**inputs)

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[Any]:
        """Eight or more different decoded items for `fusemix_core.testing`, edge cases among them.

        Texts, pictures and sounds it makes up itself, for who returns none; any other modality
        brings its own.
        """
        return ()

    def truncated(self, items: Sequence[Any]) -> int:
        """How many of these decoded items are longer than the encoder takes, and will be cut."""
        return 0

    def collated(self, items: Sequence[Any]) -> tuple[Any, int]:
        """`collate(items)` and `truncated(items)`, as extraction asks for them.

        Override it if both do the same work, such as tokenising. One that overrides `collate` of
        a class that does overrides this too.
        """
        return self.collate(items), self.truncated(items)

    def notes(self) -> Sequence[str]:
        """Sentences for the user when all is encoded, such as the cost."""
        return ()

    @property
    def weights_digest(self) -> str:
        """A digest of the weights, where `spec.weights` does not tell; see `fingerprint`.

        By default that of every parameter and buffer of the `nn.Module`s held as attributes.
        """
        from fusemix_core.digests import digest_modules

        return digest_modules(v for v in vars(self).values() if isinstance(v, nn.Module))

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v for k, v in vars(self).items() if not isinstance(v, nn.Module) and k != "runtime"
        }


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
