"""The model that a run extends: loading it, its part of the plan, and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fusemix_core.config import RunConfig
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Scorer
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.runs.models import load_model, model_of
from fusemix_core.saved import folder as files
from fusemix_core.saved.encoders import Source
from fusemix_core.specs import EncoderSpec


def extended_model(config: RunConfig, given: Mapping[str, Source]) -> FusedModel:
    """The model that `config.extends` names. Of `given` those of its modalities are its encoders,
    in place of the saved names."""
    own = files.read_config(files.locate(model_of(config.extends), None)).encoders
    return load_model(config.extends, config.device, {m: s for m, s in given.items() if m in own})


def known_encoders(
    model: FusedModel,
    config: RunConfig,
    specs: Mapping[str, EncoderSpec],
    modalities: Sequence[str],
) -> tuple[RunConfig, dict[str, EncoderSpec], dict[str, str]]:
    """(config with the model's dtype, specs and views by modality of the data).

    Raises `ConfigError` where nothing is added or the scorer can't take it in, `DataError` where
    the data have nothing of the model's, `ArtefactError` for an encoder that is not that of the
    fit.
    """
    added = [m for m in specs if m not in model.modalities]
    known = [m for m in modalities if m in model.modalities]
    if not added:
        raise ConfigError(
            f"The model has {', '.join(model.modalities)} already.",
            "Give an encoder of another modality: -e MODALITY=NAME",
        )
    if not known:
        raise DataError(
            f"The data have no column of the model's modalities: {', '.join(model.modalities)}.",
            "Pairs of a new item and one of these are needed; --column MODALITY=NAME says where.",
        )
    extended_scorer(model, {})
    config = replace(config, dtype=model.encoders[known[0]].dtype)
    for modality in known:
        encoder = model.encoder(modality)
        found = fingerprint(encoder.spec, config.dtype)
        if found is not None:
            encoder.check(found)
    return (
        config,
        {m: model.encoder(m).spec if m in known else specs[m] for m in modalities},
        {m: model.encoders[m].view if m in known else config.views[m] for m in modalities},
    )


def extended_scorer(model: FusedModel, train: Mapping[str, Tensor]) -> Scorer:
    """The model's scorer, with the training embeddings of further modalities."""
    scorer = deepcopy(model.scorer)
    try:
        scorer.extend(train)
    except NotImplementedError as error:
        raise ConfigError(
            f"The model's scorer can't take in further modalities: {error}.",
            "Extend a model with another scorer, such as cosine or csls.",
        ) from error
    return scorer


def extension(added: Sequence[str]) -> str:
    """What an extended model's card calls the run that added these modalities."""
    return f"extended with {' and '.join(added)}"


def extension_facts(
    config: RunConfig, data: Mapping[str, Any], unpaired: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What the extended model's card says of the data of this run."""
    folder = Path(config.extends)
    facts = {
        "model": folder.name if folder.exists() else config.extends,
        "recipe": config.recipe.name,
        **data,
    }
    if unpaired:
        facts["never paired in training"] = ["-".join(pair) for pair in unpaired]
    return facts
