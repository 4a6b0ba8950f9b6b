"""A run that extends a fused model: loading it, its part of the plan, and what it becomes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fusemix_core.config import ComputeDtype, Part, RunConfig
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Adapter, Encoder, LatentTable, Scorer, takes_tokens
from fusemix_core.latents.extraction import Extraction
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.runs.base import Base, Fitted, Pair
from fusemix_core.runs.embeddings import SplitEmbeddings
from fusemix_core.runs.models import load_model, model_of
from fusemix_core.saved import folder as files
from fusemix_core.saved.encoders import Source
from fusemix_core.specs import EncoderSpec


def extended_model(config: RunConfig, given: Mapping[str, Source]) -> FusedModel:
    """The model that `config.extends` names. Of `given` those of its modalities are its encoders,
    in place of the saved names."""
    assert config.extends is not None
    own = files.read_config(files.locate(model_of(config.extends), None)).encoders
    return load_model(config.extends, config.device, {m: s for m, s in given.items() if m in own})


@dataclass(frozen=True)
class Extension(Base):
    """A fused model that takes in more modalities; its own adapters and encoders stay."""

    source: FusedModel

    @classmethod
    def of(cls, model: FusedModel, new: Collection[str], modalities: Sequence[str]) -> Extension:
        """The extension of `model` on data of these modalities.

        Args:
            new: the modalities that encoders were given for.
            modalities: those of the data.

        Raises:
            ConfigError: If nothing is added, or the model's scorer can't take it in.
            DataError: If the data have nothing of the model's.
        """
        known = tuple(m for m in modalities if m in model.modalities)
        if not [m for m in new if m not in model.modalities]:
            raise ConfigError(
                f"The model has {', '.join(model.modalities)} already.",
                "Give an encoder of another modality: -e MODALITY=NAME",
            )
        if not known:
            names = ", ".join(model.modalities)
            raise DataError(
                f"The data have no column of the model's modalities: {names}.",
                "Pairs of a new item and one of these are needed; "
                "--column MODALITY=NAME says where.",
            )
        added = tuple(m for m in modalities if m not in known)
        base = cls(model, fixed=known, added=added)
        base._extended_scorer({})
        return base

    def encoders(
        self, config: RunConfig, specs: Mapping[str, EncoderSpec]
    ) -> tuple[RunConfig, dict[str, EncoderSpec], dict[str, str]]:
        """The config, at the dtype of the model's first encoder; specs and views by modality, the
        model's own first.

        Raises:
            ArtefactError: If one of the model's encoders is not that of the fit.
        """
        config = replace(config, dtype=self.source.encoders[self.fixed[0]].dtype)
        own = {m: self.source.encoder(m) for m in self.fixed}
        for encoder in own.values():
            found = fingerprint(encoder.spec, encoder.info.dtype)
            if found is not None:
                encoder.check(found)
        views = {m: self.source.encoders[m].view for m in self.fixed}
        return (
            config,
            {m: e.spec for m, e in own.items()} | {m: specs[m] for m in self.added},
            views | {m: config.views[m] for m in self.added},
        )

    def loaded(self) -> dict[str, Encoder]:
        encoders = {m: self.source.encoder(m).given for m in self.fixed}
        return {m: encoder for m, encoder in encoders.items() if encoder is not None}

    def dtypes(self) -> dict[str, ComputeDtype]:
        return {m: self.source.encoders[m].dtype for m in self.fixed}

    def check(self, extractions: Mapping[str, Extraction]) -> None:
        for modality in self.fixed:
            done = extractions[modality]
            self.source.encoder(modality).check(done.fingerprint, done.digest)

    def token_modalities(self) -> list[str]:
        return [m for m in self.fixed if takes_tokens(self.source.adapters[m])]

    def fixed_adapters(self, tables: Mapping[str, LatentTable]) -> dict[str, Adapter]:
        return {m: deepcopy(self.source.adapters[m]).cpu().eval() for m in self.fixed}

    def scorer(
        self, config: RunConfig, bank: SplitEmbeddings, validation: SplitEmbeddings
    ) -> tuple[Part, Scorer]:
        """The model's own, which has taken in the embeddings of the new modalities."""
        added = {m: bank.embeddings[m] for m in self.added}
        return self.source.scorer_part, self._extended_scorer(added)

    def model(self, config: RunConfig, fitted: Fitted) -> FusedModel:
        assert config.extends is not None
        folder = Path(config.extends)
        facts = {
            "model": folder.name if folder.exists() else config.extends,
            "recipe": config.recipe.name,
            **fitted.data,
        }
        if fitted.unpaired:
            facts["never paired in training"] = ["-".join(pair) for pair in fitted.unpaired]
        return self.source.extended(
            {m: fitted.adapters[m] for m in self.added},
            {m: fitted.encoders[m] for m in self.added},
            fitted.scorer[1],
            sources={m: fitted.sources[m] for m in self.added},
            data={self._title: facts},
        )

    def add_metrics(self, model: FusedModel, found: Mapping[str, Any]) -> None:
        model.metrics |= {self._title: found}

    def results(self, unpaired: Sequence[Pair]) -> dict[str, Any]:
        return {"never_paired": ["-".join(pair) for pair in unpaired]}

    @property
    def _title(self) -> str:
        """What the model's card calls the run that added these modalities."""
        return f"extended with {' and '.join(self.added)}"

    def _extended_scorer(self, train: Mapping[str, Tensor]) -> Scorer:
        """The model's scorer, with the training embeddings of further modalities."""
        scorer = deepcopy(self.source.scorer)
        try:
            scorer.extend(train)
        except NotImplementedError as error:
            raise ConfigError(
                f"The model's scorer can't take in further modalities: {error}.",
                "Extend a model with another scorer, such as cosine or csls.",
            ) from error
        return scorer
