"""What a run is compared with: a recipe that is fitted to the same rows, and finished models."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import Recipe, RunConfig, read_toml
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items, Origin
from fusemix_core.errors import ConfigError, DataError, FusemixError, UnknownNameError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import FitContext, PairedLatents
from fusemix_core.latents.tables import RaggedLatents
from fusemix_core.measured import Measured
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe
from fusemix_core.runs.embeddings import embed_split
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.fused import fused_model
from fusemix_core.runs.models import embed_for, encode_for, load_model, model_of
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import rows_to_fit
from fusemix_core.runs.scorers import BANK_MOST
from fusemix_core.runs.seen import TrainedOn
from fusemix_core.saved import folder as files
from fusemix_core.saved.encoders import Source

MOST_WORK = 4e12
"""Multiplications of a closed form beyond which a recipe is not fitted for comparison only."""

_PER_CUBE = 50
"""Those of its eigenvectors, in cubes of the width of all latents together."""


@dataclass(frozen=True)
class Places:
    """Where rows were read: (file, row), once with the files' whole paths, and once with paths from
    the folder that the run was started in, as only these survive a copy of run and data."""

    whole: frozenset[tuple[str, int]]
    below: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int]], base: str) -> Places:
        """Those of rows whose files are named from the folder `base`."""
        rows = list(rows)
        real = {f: os.path.realpath(os.path.join(base, f)) for f in {file for file, _ in rows}}
        short = {f: os.path.relpath(path, os.path.realpath(base)) for f, path in real.items()}
        return cls(
            frozenset((real[file], row) for file, row in rows),
            frozenset((short[file], row) for file, row in rows),
        )

    def within(self, other: Places) -> bool:
        """Whether all of these rows are among others."""
        return self.whole <= other.whole or self.below <= other.below

    def missing(self, other: Places) -> int:
        """How many of these rows are not among others."""
        return min(len(self.whole - other.whole), len(self.below - other.below))


def is_recipe(name: str) -> bool:
    """Whether a baseline is a registered recipe, which is fitted; else it is a finished model."""
    found = registry.all_components("recipe")
    return name in {known for _, spec in found for known in (spec.name, *spec.aliases)}


def check_baselines(config: RunConfig, dataset: PairedDataset) -> None:
    """Raise `FusemixError` for a baseline that the rows of a run can't be measured by.

    A model must have two of the modalities. If it lies in a run, that must have been tested on the
    same rows, which also means that none of them was trained on.
    """
    for name in config.baselines:
        if not is_recipe(name):
            _shared(name, dataset.modalities)
            rows = shown_rows(dataset)
            tested = places_of_run(name)
            if tested is not None and not tested.within(rows):
                raise _other_rows(name, tested, rows)


def _shared(name: str, modalities: Sequence[str]) -> list[str]:
    """The modalities that a saved model has of these, two or more."""
    if "/" not in name and not Path(name).exists():
        recipes = [spec.name for _, spec in registry.all_components("recipe")]
        note = "A finished model is named by its folder, or that of its run."
        raise UnknownNameError.of("baseline", name, recipes, note)
    own = files.read_config(files.locate(model_of(name))).encoders
    shared = [m for m in modalities if m in own]
    if len(shared) < 2:
        raise ConfigError(
            f"The baseline {name} has {', '.join(own)}; these data have {', '.join(modalities)}.",
            "A baseline needs two of the modalities.",
        )
    return shared


def shown_rows(dataset: PairedDataset) -> Places:
    """Where the rows were read that a run is measured on: test, or validation if that is empty."""
    rows = dataset.splits["test"] if len(dataset.splits["test"]) else dataset.splits["validation"]
    return Places.of((dataset.origin[i] for i in rows.tolist()), os.getcwd())


def places_of_run(model: str) -> Places | None:
    """Where the rows were read that the run of a model was measured on; None if it isn't in a run.

    Raises:
        ConfigError: If the run doesn't list its rows.
    """
    folder = next((f for f in (Path(model), Path(model).parent) if (f / "model").is_dir()), None)
    if folder is None or not (folder / "config.toml").is_file():
        return None
    data = read_toml(folder / "config.toml").get("data", {})
    base = data.get("base") if isinstance(data, Mapping) else None
    splits: dict[str, list[tuple[str, int]]] = {}
    try:
        with open(folder / "splits.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                splits.setdefault(row["split"], []).append((row["file"], int(row["row"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The run {folder} doesn't list its rows: splits.csv can't be read ({error}).",
            "Runs of earlier versions have none. Run it again to compare with it.",
        ) from error
    return Places.of(splits.get("test") or splits.get("validation", []), base or os.getcwd())


def _other_rows(name: str, tested: Places, rows: Places) -> ConfigError:
    return ConfigError(
        f"The baseline {name} was tested on other rows: {tested.missing(rows):,} of its "
        f"{len(tested.whole):,} test rows are not among the {len(rows.whole):,} of this run, and "
        f"{rows.missing(tested):,} of this run not among its.",
        "Numbers of different rows can't be compared. Give both runs the same data, --seed and "
        "way of splitting.",
    )


def label_of(name: str) -> str:
    """What a baseline is called: a recipe's name, the last part of a run's folder, a hub id."""
    path = Path(name)
    if is_recipe(name) or not path.is_dir():
        return name
    path = path.resolve()
    return path.parent.name if path.name == "model" else path.name


# -- in a run --------------------------------------------------------------------------------------


def baselines_of_run(
    plan: Plan,
    encoded: Encoded,
    rows: Mapping[str, PairedLatents],
    model: FusedModel,
    shown: Measured,
    sources: Mapping[str, Source],
    reporter: Reporter,
) -> tuple[dict[str, Measured], dict[str, dict[str, Any]]]:
    """The split that a run shows, as each of its baselines embeds it.

    Args:
        plan: the run.
        encoded: its latents.
        rows: `train`, what was fitted, and the measured rows of each split.
        model: what the run fitted.
        shown: the split.
        sources: modality → encoder, for baselines that have one of the same name.
        reporter: gets a note on each baseline that is left out.

    Returns:
        baseline → its `Measured`; baseline → what results.json says of it: `about`, and `skipped`,
        the reason, if it could not be measured.
    """
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
            began = time.monotonic()
            if recipe is None:
                check_rows(name, encoded.dataset)
                other = load_model(name, str(model.device), same_encoders(name, sources))
                other = embedded_by(other, shown, reporter, plan.config.store)
            else:
                other = _fitted(recipe, plan, encoded, rows, model, shown)
                told[label]["fit_seconds"] = round(time.monotonic() - began, 2)
            found[label] = replace(other, about=about)
        except Exception as error:  # whatever a baseline does, the run goes on
            told[label]["skipped"] = why = _reason(error)
            reporter.note(f"The baseline {label} is left out: {why}")
    return found, told


def _reason(error: Exception) -> str:
    shown = error.message if isinstance(error, FusemixError) else f"{type(error).__name__}: {error}"
    return " ".join(shown.split())


def check_rows(name: str, dataset: PairedDataset) -> None:
    """Raise `ConfigError` if a model lies in a run that was measured on other rows."""
    tested, rows = places_of_run(name), shown_rows(dataset)
    if tested is not None and not (tested.within(rows) and rows.within(tested)):
        raise _other_rows(name, tested, rows)


def same_encoders(name: str, sources: Mapping[str, Source]) -> dict[str, Source]:
    """Those of the sources that are what a saved model names."""
    own = files.read_config(files.locate(model_of(name))).encoders
    spec = {m: getattr(source, "spec", source) for m, source in sources.items()}
    return {m: sources[m] for m, info in own.items() if m in spec and spec[m].name == info.name}


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
        ConfigError: If it would take too long, or the latents are not one row an item.
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
        _shared(name, model.modalities)
        other = load_model(name, str(model.device), same_encoders(name, sources))
        label = label_of(name) if label_of(name) not in found else name
        embedded = embedded_by(other, data, reporter)
        found[label] = replace(embedded, about="a finished model on the same rows")
    return found


def _as_dataset(items: Mapping[str, Items], links: Tensor) -> PairedDataset:
    rows = np.arange(len(links))
    origin = Origin(("",), np.zeros(len(rows), np.int64), rows)
    return PairedDataset(dict(items), links.numpy(), {"all": rows}, origin, least=1)
