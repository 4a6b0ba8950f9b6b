"""What a run starts from: nothing, or a fused model that it extends. `make_plan` chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.config import ComputeDtype, Part, RunConfig, to_dict
from fusemix_core.errors import ConfigError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import Adapter, Encoder, LatentTable, Scorer
from fusemix_core.latents.extraction import Extraction
from fusemix_core.runs.embeddings import SplitEmbeddings
from fusemix_core.runs.scorers import choose_scorer
from fusemix_core.saved.encoders import Source

Pair = tuple[str, str]


@dataclass(frozen=True)
class Fitted:
    """The parts of a fused model, as a run made them.

    Attributes:
        adapters: modality → adapter, those that stay as they were among them.
        encoders: modality → what the model records of its encoder.
        sources: modality → where its encoder comes from.
        scorer: the scorer's name and options, and the scorer.
        data: what the model records of the data.
        unpaired: the pairs of modalities that no training row links; of an extension.
    """

    adapters: Mapping[str, Adapter]
    encoders: Mapping[str, EncoderInfo]
    sources: Mapping[str, Source]
    scorer: tuple[Part, Scorer]
    data: Mapping[str, Any]
    unpaired: Sequence[Pair] = ()


@dataclass(frozen=True, kw_only=True)
class Base(ABC):
    """What a run starts from.

    Attributes:
        fixed: the modalities of the data that stay as they are.
        added: the modalities that join a model; none in a run of its own.
    """

    fixed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @abstractmethod
    def loaded(self) -> dict[str, Encoder]:
        """modality → encoder, of those that are loaded already."""

    def dtypes(self) -> dict[str, ComputeDtype]:
        """modality → what its encoder computes in, of those that stay as they are."""
        return {}

    @abstractmethod
    def check(self, extractions: Mapping[str, Extraction]) -> None:
        """Raise `ArtefactError` if latents are not by the encoders that the base was fitted to."""

    @abstractmethod
    def token_modalities(self) -> list[str]:
        """Those that stay as they are, and whose adapters take tokens."""

    @abstractmethod
    def fixed_adapters(self, tables: Mapping[str, LatentTable]) -> dict[str, Adapter]:
        """modality → adapter of those that stay as they are, in eval mode on the CPU."""

    @abstractmethod
    def scorer(
        self, config: RunConfig, bank: SplitEmbeddings, validation: SplitEmbeddings
    ) -> tuple[Part, Scorer]:
        """The scorer of the model, and its name and options."""

    @abstractmethod
    def model(self, config: RunConfig, fitted: Fitted) -> FusedModel:
        """The fused model that the run makes, before it is measured."""

    @abstractmethod
    def add_metrics(self, model: FusedModel, found: Mapping[str, Any]) -> None:
        """Record in that model what evaluators found, evaluator → metrics."""

    @abstractmethod
    def results(self, unpaired: Sequence[Pair]) -> dict[str, Any]:
        """What results.json has beside that of any run."""


@dataclass(frozen=True)
class Fresh(Base):
    """Nothing: all adapters are fitted, and the latents of fixed modalities are embeddings."""

    def loaded(self) -> dict[str, Encoder]:
        return {}

    def check(self, extractions: Mapping[str, Extraction]) -> None:
        pass

    def token_modalities(self) -> list[str]:
        return []

    def fixed_adapters(self, tables: Mapping[str, LatentTable]) -> dict[str, Adapter]:
        """Raises `ConfigError` if the latents differ in width."""
        dims = {m: tables[m].dim for m in self.fixed}
        if len(set(dims.values())) > 1:
            widths = ", ".join(f"{m} {d}" for m, d in dims.items())
            raise ConfigError(
                f"Fixed modalities share a space, and these latents differ in width: {widths}.",
                "Fix one of them.",
            )
        return {m: IdentityAdapter(d, d).eval() for m, d in dims.items()}

    def scorer(
        self, config: RunConfig, bank: SplitEmbeddings, validation: SplitEmbeddings
    ) -> tuple[Part, Scorer]:
        return choose_scorer(config.recipe, bank, validation, private=config.private)

    def model(self, config: RunConfig, fitted: Fitted) -> FusedModel:
        part, scorer = fitted.scorer
        return FusedModel(
            fitted.adapters,
            fitted.encoders,
            scorer,
            scorer_part=part,
            sources=fitted.sources,
            recipe=to_dict(config.recipe),
            data=fitted.data,
            device=config.device,
        )

    def add_metrics(self, model: FusedModel, found: Mapping[str, Any]) -> None:
        model.metrics |= found

    def results(self, unpaired: Sequence[Pair]) -> dict[str, Any]:
        return {}
