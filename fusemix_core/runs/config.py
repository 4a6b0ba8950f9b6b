"""From names, tables and `key=value` settings to a checked config. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusemix_core.aligners.budget import Budget
from fusemix_core.config import (
    PARTS,
    DataConfig,
    Recipe,
    RunConfig,
    from_dict,
    to_dict,
)
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.overrides import override_recipe
from fusemix_core.recipes.renamed import renamed
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec

COMPLETE = "complete"
"""In the table of a recipe: that it lacks nothing, so that what it does not name is not taken from
the registered recipe of that name. So a run records `mixup=none`, or options that were cleared."""


def find_recipe(
    given: str | Mapping | Recipe, overrides: Sequence[str] = (), registry: Registry = registry
) -> Recipe:
    """The recipe of a name (registered, or `./file.py:function`), of a table `{name, …overrides}`,
    of one that is `COMPLETE`, or as given, checked.

    Raises `UnknownNameError` or `ConfigError` for anything in it that can't be used.
    """
    if isinstance(given, str):
        given = {"name": given}
    if isinstance(given, Mapping):
        if not isinstance(given.get("name"), str):
            raise ConfigError("The recipe has no name.", 'Example: recipe = "auto"')
        given = renamed(given)
        if COMPLETE in given:
            given = from_dict(Recipe, recorded_recipe(given), "recipe.")
        else:
            given = _overridden(given, registry)
    if not isinstance(given, Recipe):
        raise ConfigError(f"recipe is {given!r}.", 'Example: recipe = "auto"')
    recipe = override_recipe(given, list(overrides))
    check_budget(recipe, registry)
    for name in PARTS:
        part = getattr(recipe, name)
        if part is not None:
            registry.check("aligner" if name == "start" else name, part)
    for part in (recipe.adapters or {}).values():
        registry.check("adapter", part)
    for part in recipe.evaluators or ():
        registry.check("evaluator", part)
    return recipe


def recorded_recipe(table: Mapping) -> dict:
    """The fields of a `Recipe` in the table of a run's config.toml."""
    return {key: value for key, value in renamed(table).items() if key != COMPLETE}


def _overridden(given: Mapping, registry: Registry) -> Recipe:
    """The recipe of the table's name with the other values of the table in place of its own."""
    base = registry.recipe(given["name"])()
    if not isinstance(base, Recipe):
        raise ConfigError(
            f"The recipe '{given['name']}' is {base!r}.", "Its function returns a Recipe."
        )
    over = {**given, "name": base.name}
    return from_dict(Recipe, _merged(to_dict(base), over), "recipe.")


def _merged(base: dict, over: Mapping) -> dict:
    """`base` with the values of `over`, tables merged; a part of another name starts afresh."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(value, str) and isinstance(old, dict):
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(old, dict):
            same = value.get("name", old.get("name")) == old.get("name")
            out[key] = _merged(old, value) if same else dict(value)
        else:
            out[key] = value
    return out


def resolve_encoders(
    names: Mapping[str, str], registry: Registry = registry
) -> dict[str, EncoderSpec]:
    """modality → spec; raises for an unknown name or a package that is not installed."""
    specs = {}
    for modality, name in names.items():
        specs[modality] = registry.encoder(name, modality)
        specs[modality].check_requirements()
        registry.component("medium", specs[modality].takes).check_requirements()
    return specs


def resolve_views(
    specs: Mapping[str, EncoderSpec],
    given: Mapping[str, str],
    preferred: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """modality → view of its encoder: as given, else as preferred where the encoder declares that,
    else the first that it declares.

    Raises `ConfigError` for a view that it does not declare, or a modality that has no encoder.
    """
    for modality, view in given.items():
        if modality not in specs:
            raise UnknownNameError.of("modality of this run", modality, specs)
        spec = specs[modality]
        if view not in spec.views:
            raise ConfigError(
                f"The encoder '{spec.name}' has no view '{view}'.",
                f"Its views: {', '.join(spec.views)}.",
            )
    views = {}
    for modality, spec in specs.items():
        liked = (preferred or {}).get(modality)
        views[modality] = given.get(modality, liked if liked in spec.views else spec.views[0])
    return views


def build_config(
    values: Mapping, overrides: Sequence[str] = (), registry: Registry = registry
) -> tuple[RunConfig, dict[str, EncoderSpec]]:
    """A checked `RunConfig` and its encoders, from the tables of a TOML file or of options.

    `recipe` may be a name or a table; `overrides` are `key=value` settings of the recipe.
    """
    values = dict(values)
    recipe = find_recipe(values.pop("recipe", "auto"), overrides, registry)
    encoders, extends = values.get("encoders"), values.get("extends")
    if extends and not encoders:
        raise ConfigError(
            "No encoder is given for the modality to add.",
            "Example: fusemix extend runs/1 -e audio=whisper-tiny --data pairs.csv",
        )
    if not isinstance(encoders, Mapping) or (len(encoders) < 2 and not extends):
        raise ConfigError(
            "A run needs two encoders or more.",
            "Example: fusemix align --a efficientnet-lite0 --b minilm --data pairs.csv",
        )
    check_selection(recipe)
    config = from_dict(RunConfig, {**values, "recipe": to_dict(recipe)})
    if not config.data.source and extends and len(config.encoders) == 1:
        raise ConfigError(
            "No data given.",
            "Add --data PATH: pairs of the new items with items of the model.\nLatents of your own "
            "need none if you name those of the model too, and rows correspond: "
            "-e image=npy:img.npy -e audio=npy:aud.npy",
        )
    if not config.data.source:
        specs = {m: registry.encoder(name, m) for m, name in config.encoders.items()}
        config = replace(config, data=replace(config.data, **own_items(specs)))
    check_fixed(config)
    if missing := [file for file in config.plugins if file not in registry.files]:
        raise ConfigError(
            f"The config needs the plugin {missing[0]}.", f"Load it: --plugin {missing[0]}"
        )
    config = replace(config, plugins=tuple(registry.files))
    if config.data.reader is not None:
        registry.check("reader", config.data.reader)
    for part in config.evaluators:
        registry.check("evaluator", part)
    for part in config.corrections:
        registry.check("correction", part)
    if recipe.training and recipe.training.unpaired:
        config = replace(config, data=replace(config.data, unpaired=True))
    specs = resolve_encoders(config.encoders, registry)
    for modality in recipe.adapters or {}:
        if modality not in specs:
            hint = f"The recipe has an adapter for it; without: --set adapters.{modality}=none"
            raise UnknownNameError.of("modality of this run", modality, specs, hint)
    preferred = {m: v for m, v in (recipe.views or {}).items() if m not in config.fixed}
    return replace(config, views=resolve_views(specs, config.views, preferred)), specs


def own_items(specs: Mapping[str, EncoderSpec]) -> dict[str, Any]:
    """The source and columns of data that encoders list themselves: equal ids are pairs.

    Raises `ConfigError` if an encoder lists none, or another number of items than the others.
    """
    lists = {modality: spec.items for modality, spec in specs.items()}
    if not lists or not all(lists.values()):
        raise ConfigError("No data given.", "Add --data PATH; `fusemix align --help` lists forms.")
    counts = {source: listed(source) for source in lists.values()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{source} has {count:,} rows" for source, count in counts.items())
        raise ConfigError(
            f"The latents don't correspond row by row: {found}.",
            "Say which rows are pairs: --data pairs.csv, with a column for each modality. Its "
            "cells are numbers of rows from 0, or the ids in NAME.ids.txt beside a file.",
        )
    return {"source": (next(iter(counts)),), "columns": dict.fromkeys(lists, "id")}


def listed(source: str) -> int:
    """How many items a source of an encoder's own lists."""
    from fusemix_core.data.sources import open_source

    rows, _, _ = open_source(Path(source), DataConfig())
    return sum(1 for _ in rows)


def chosen_by(
    select: str | None = None, pairs: int | None = None, budget: str | None = None
) -> list[str]:
    """`--select`, `--pairs` and `--budget` as settings of a recipe."""
    given = {"selector": select, "pairs": pairs, "aligner.budget": budget and f'"{budget}"'}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def check_budget(recipe: Recipe, registry: Registry = registry) -> None:
    """Raise `ConfigError` if the recipe's aligner is given a budget that it can't keep to, or that
    isn't one."""
    part = recipe.aligner
    if "budget" not in part.options:
        return
    if "budget" not in registry.component("aligner", part.name).options:
        raise ConfigError(
            f"The recipe '{recipe.name}' takes no budget.",
            "The recipe auto does; of one that trains by gradient, --set training.max_steps=N "
            "bounds the steps.",
        )
    if isinstance(part.options["budget"], str):
        Budget.of(part.options["budget"])


def check_selection(recipe: Recipe) -> None:
    """Raise `ConfigError` unless the recipe says how many pairs to choose, where it chooses any."""
    if recipe.selector is not None and recipe.pairs is None:
        raise ConfigError(
            f"How many pairs is the selector '{recipe.selector.name}' to choose?",
            "Example: --select dpp --pairs 5000",
        )
    if recipe.pairs is not None and recipe.pairs < 2:
        raise ConfigError(f"pairs is {recipe.pairs}.", "A fit needs 2 pairs or more.")


def check_fixed(config: RunConfig) -> None:
    """Raise `ConfigError` unless the fixed modalities leave something to fit."""
    for modality in config.fixed:
        if modality not in config.encoders:
            raise UnknownNameError.of("modality of this run", modality, config.encoders)
    if config.fixed and config.extends:
        raise ConfigError(
            "A model's own modalities are fixed when it is extended.", "Leave out `fixed`."
        )
    if config.corrections and not (config.fixed or config.extends):
        raise ConfigError(
            "Corrections bring embeddings to the latents of a fixed modality, and none is fixed.",
            "Add --fixed MODALITY, whose encoder the generator is conditioned by.",
        )
    if config.fixed and set(config.fixed) == set(config.encoders):
        raise ConfigError(
            "All modalities are fixed, so there is nothing to fit.",
            f"Leave one of them out of --fixed: {', '.join(config.encoders)}.",
        )
