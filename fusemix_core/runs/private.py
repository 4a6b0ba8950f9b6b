"""Private runs: nothing of a single item is written, neither as it is nor as a vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fusemix_core.config import PARTS, Part, Recipe
from fusemix_core.errors import ConfigError
from fusemix_core.registry import Registry, registry

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel

OF_MODEL = "no media or texts of the data, and no latents, embeddings or digests of training items"
"""The contents of a private model, for its card."""

OF_RUN = f"Private: this run contains {OF_MODEL}."
"""The same of its folder, for the report."""


def private_recipe(recipe: Recipe, registry: Registry = registry) -> tuple[Recipe, list[str]]:
    """The recipe without what keeps rows of training items, and a note on each change.

    A part that keeps such rows gets the options with which it keeps none, if the recipe leaves
    these open.

    Raises:
        ConfigError: If a part can't do without, or the recipe asks for them.
    """
    notes: list[str] = []
    for name in PARTS:
        part = getattr(recipe, name)
        if part is not None:
            kind = "aligner" if name == "start" else name
            changed = _without_items(recipe.name, kind, name, part, registry, notes)
            parts: dict[str, Any] = {name: changed}
            recipe = replace(recipe, **parts)
    adapters = {
        m: _without_items(recipe.name, "adapter", f"adapters.{m}", part, registry, notes)
        for m, part in (recipe.adapters or {}).items()
    }
    if adapters:
        recipe = replace(recipe, adapters=adapters)
    if recipe.scorer is None and len(private_scorers(registry)) < len(scorers(registry)):
        kept = ", ".join(private_scorers(registry))
        notes.append(f"Private: scores that keep training embeddings are left out; {kept} remains.")
    return recipe, notes


def _without_items(
    recipe: str, kind: str, at: str, part: Part, registry: Registry, notes: list[str]
) -> Part:
    spec = registry.check(kind, part)
    if not spec.keeps_items:
        return part
    if not spec.without_items:
        raise ConfigError(
            f"A private run can't use the {kind} '{part.name}': it keeps rows of training items.",
            f"Take a recipe that keeps none, or leave out --private. The recipe was '{recipe}'.",
        )
    options = dict(part.options)
    for key, value in spec.without_items.items():
        if options.get(key, spec.options[key]) == value:
            continue
        if options.get(key) is not None:
            raise ConfigError(
                f"The recipe '{recipe}' keeps rows of training items: {at}.{key} is "
                f"{options[key]!r}. A private run may not.",
                f"Add --set {at}.{key}={value}, or choose another recipe.",
            )
        options[key] = value
        notes.append(f"Private: {at}.{key} is {value}, so that no training items are kept.")
    return replace(part, options=options)


def scorers(registry: Registry = registry) -> list[str]:
    """The registered scorers."""
    return sorted(spec.name for _, spec in registry.all_components("scorer"))


def private_scorers(registry: Registry = registry) -> list[str]:
    """The registered scorers that keep no rows of training items."""
    kept = {s.name for _, s in registry.all_components("scorer") if s.keeps_items}
    return [name for name in scorers(registry) if name not in kept]


def check_private(model: FusedModel, name: str) -> None:
    """Raise `ConfigError` if parts of a model contain rows of training items.

    Args:
        name: what the model is called in the error.
    """
    for part in model.parts:
        kind = part.partition(".")[0]
        saved = model.part(part)
        if any(_holds(*one, model.registry) for one in _nested(kind, saved.name, saved.options)):
            raise ConfigError(
                f"{name} contains rows of training items ({part}, {saved.name}), and the run is "
                "private.",
                "Fit it by a recipe that keeps none, such as with --private.",
            )


def _nested(
    kind: str, name: str, options: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(kind, name, options) of a part, and of those that its options name."""
    yield kind, name, options
    for value in options.values():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, Mapping) and isinstance(one.get("name"), str):
                yield from _nested(kind, one["name"], one.get("options", {}))


def _holds(kind: str, name: str, options: Mapping[str, Any], registry: Registry) -> bool:
    spec = registry.component(kind, name)
    given = {**spec.options, **options}
    without = spec.without_items
    return spec.keeps_items and (not without or any(given[k] != v for k, v in without.items()))
