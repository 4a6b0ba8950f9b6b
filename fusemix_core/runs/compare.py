"""A split as others embed it: a recipe that is fitted to the same rows, and finished models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import Recipe
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items, Origin
from fusemix_core.errors import ConfigError, DataError, FusemixError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Encoder, FitContext, PairedLatents
from fusemix_core.latents.tables import RaggedLatents
from fusemix_core.measured import Measured
from fusemix_core.registry import registry
from fusemix_core.runs.baselines import (
    check_rows,
    is_recipe,
    label_of,
    same_encoders,
    shared_modalities,
)
from fusemix_core.runs.config import find_recipe
from fusemix_core.runs.embeddings import embed_split
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.fused import fused_model
from fusemix_core.runs.models import embed_for, encode_for, load_model
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import rows_to_fit
from fusemix_core.runs.scorers import BANK_MOST
from fusemix_core.runs.seen import TrainedOn

MOST_WORK = 4e12
"""Multiplications of a closed form beyond which a recipe is not fitted for comparison only."""

_PER_CUBE = 50
"""Those of its eigenvectors, in cubes of the width of all latents together."""


# -- in a run --------------------------------------------------------------------------------------


def baselines_of_run(
    plan: Plan,
    encoded: Encoded,
    rows: Mapping[str, PairedLatents],
    model: FusedModel,
    shown: Measured,
    objects: Mapping[str, Encoder],
    reporter: Reporter,
) -> tuple[dict[str, Measured], dict[str, dict[str, Any]]]:
    """The split that a run shows, as each of its baselines embeds it.

    Args:
        plan: the run.
        encoded: its latents.
        rows: `train`, what was fitted, and the measured rows of each split.
        model: what the run fitted.
        shown: the split.
        objects: modality → loaded encoder, for those that the caller has.
        reporter: gets a note on each baseline that is left out.

    Returns:
        baseline → its `Measured`; baseline → what results.json says of it: `about`, and `skipped`,
        the reason, if it could not be measured.
    """
    sources = {m: objects.get(m, spec) for m, spec in plan.specs.items()}
    found: dict[str, Measured] = {}
    told: dict[str, dict[str, Any]] = {}
    for name in plan.config.baselines:
        recipe = find_recipe(name) if is_recipe(name) else None
        if recipe is not None and recipe.aligner == plan.config.recipe.aligner:
            continue
        label = label_of(name)
        label = name if label in told else label
        fitted = recipe and f"{recipe.summary}, fitted to the same rows"
        about = fitted or "a finished model on the same rows"
        told[label] = {"about": about}
        try:
            if recipe is None:
                check_rows(name, encoded.dataset)
                other = load_model(name, str(model.device), same_encoders(name, sources))
                other = embedded_by(other, shown, reporter, plan.config.store)
            else:
                other = _fitted(recipe, plan, encoded, rows, model, shown)
            found[label] = replace(other, about=about)
        except Exception as error:  # whatever a baseline does, the run goes on
            told[label]["skipped"] = why = _reason(error)
            reporter.note(f"The baseline {label} is left out: {why}")
    return found, told


def _reason(error: Exception) -> str:
    shown = error.message if isinstance(error, FusemixError) else f"{type(error).__name__}: {error}"
    return " ".join(shown.split())


def _fitted(
    recipe: Recipe,
    plan: Plan,
    encoded: Encoded,
    rows: Mapping[str, PairedLatents],
    model: FusedModel,
    shown: Measured,
) -> Measured:
    """The split as adapters embed it that a recipe fits to the rows of the run.

    Raises:
        ConfigError: If it would take too long, or items have several latents each.
    """
    train, config, device = rows["train"], plan.config, shown.device
    _check_size(train)
    fixed = plan.base.fixed_adapters(encoded.tables)
    validation = encoded.paired("validation")
    validation = validation.select(rows_to_fit(validation, fixed))
    context = FitContext(device=device, seed=config.seed, fixed=fixed, latents=encoded.digest)
    adapters = registry.build("aligner", recipe.aligner).fit(train, validation, recipe, context)
    bank = embed_split(adapters, train, device, most=BANK_MOST)
    chosen_on = embed_split(adapters, rows["validation"], device)
    part, scorer = plan.base.scorer(replace(config, recipe=recipe), bank, chosen_on)
    split = embed_split(adapters, rows[shown.split], device)
    other = fused_model(plan, encoded, adapters, (part, scorer), {})
    return replace(
        shown,
        embeddings=split.embeddings,
        score=scorer.score,
        scorer=part.name,
        bank=None,
        encoder=lambda modality, items: other.embed(modality, model.latents(modality, items)),
    )


def _check_size(train: PairedLatents) -> None:
    if any(isinstance(table, RaggedLatents) for table in train.tables.values()):
        raise ConfigError("items have several latents each, and it takes one.")
    width = sum(train.dims.values())
    if len(train) * width**2 + _PER_CUBE * width**3 > MOST_WORK:
        raise ConfigError(
            f"fitting {len(train):,} pairs of {width:,} numbers takes too long for a comparison."
        )


# -- finished models -------------------------------------------------------------------------------


def embedded_by(
    other: FusedModel, shown: Measured, reporter: Reporter, store: str | None = None
) -> Measured:
    """A split as another model embeds it: its encoders encode the items, unless their latents are
    in the store. It has those of the modalities that the model has.

    Raises:
        DataError: If its encoders can't use an item.
        FusemixError: If an encoder can't be loaded, or is another than that of its fit.
    """
    own = [m for m in shown.modalities if m in other.modalities]
    columns = [shown.modalities.index(m) for m in own]
    items = {m: shown.items[m].select(shown.ids[m].numpy()) for m in own}
    links = shown.links[:, columns]
    dataset = _as_dataset(items, links)
    encoded = encode_for(other, dataset, reporter, max_bad=1.0, store=store)
    if lost := encoded.dataset.rejected:
        raise DataError(f"its encoders can't use {len(lost):,} of the entries.")
    seen = TrainedOn.count(other, dataset, slice(None))
    for warning in [] if seen is None else seen.warnings():
        reporter.note(f"Of the baseline: {warning}")
    return replace(
        shown,
        embeddings=embed_for(other, encoded.paired()).embeddings,
        links=links,
        score=other.scorer.score,
        scorer=other.scorer_name,
        bank=None,
        classes=None,
        items=items,
        ids={m: torch.arange(len(items[m])) for m in own},
        encoder=other.encode,
        device=other.device,
    )


def models_beside(
    names: Sequence[str], model: FusedModel, data: Measured, reporter: Reporter
) -> dict[str, Measured]:
    """Data that a model was measured on, as finished models embed them, by their labels.

    Raises:
        ConfigError: If one is a recipe, or lacks the modalities.
    """
    found: dict[str, Measured] = {}
    encoders = {m: model.encoder(m) for m in model.modalities}
    sources = {m: one.given or one.spec for m, one in encoders.items() if names}
    for name in names:
        if is_recipe(name):
            raise ConfigError(
                f"The recipe {name} can't be fitted here: there are no training rows.",
                "Compare with a finished model: the folder of its run.",
            )
        shared_modalities(name, model.modalities)
        other = load_model(name, str(model.device), same_encoders(name, sources))
        label = label_of(name) if label_of(name) not in found else name
        embedded = embedded_by(other, data, reporter)
        found[label] = replace(embedded, about="a finished model on the same rows")
    return found


def _as_dataset(items: Mapping[str, Items], links: Tensor) -> PairedDataset:
    rows = np.arange(len(links))
    origin = Origin(("",), np.zeros(len(rows), np.int64), rows)
    return PairedDataset(dict(items), links.numpy(), {"all": rows}, origin, least=1)
