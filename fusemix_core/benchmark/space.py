"""Which settings of a method a search tries, in which order, and for how long. Nothing heavy."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.aligners.budget import Budget
from fusemix_core.config import PARTS, Recipe, parse_assignment, to_dict
from fusemix_core.errors import ConfigError, FusemixError, UnknownNameError, short
from fusemix_core.overrides import override_recipe
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe
from fusemix_core.userfile import in_file

Space = Mapping[str, tuple[Any, ...]]
"""Setting, as `--set` names it → the values to try."""

RATES = (1 / 3, 3.0)
"""Factors of the learning rate, for a recipe that trains by gradient and declares no space."""


@dataclass(frozen=True)
class SearchBudget:
    """How many settings of each method are tried, or for how many seconds."""

    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, given: Any) -> SearchBudget:
        """From a number of trials, or a time such as `60s` or `10m`.

        Raises:
            ConfigError: For anything else.
        """
        text = str(given).strip()
        if type(given) in (int, str) and text.isdecimal() and int(text) > 0:
            return cls(trials=int(text))
        try:
            budget = Budget.of(given if isinstance(given, str) else "?")
        except ConfigError:
            budget = Budget(steps=1)
        if not text or budget.steps != float("inf"):
            raise ConfigError(
                f"search is {short(repr(given))}.",
                "Give a number of trials, or a time: 8, 60s, 10m.",
            )
        return cls(seconds=budget.seconds)

    def __str__(self) -> str:
        if self.trials is not None:
            return f"{self.trials} trial{'s' * (self.trials > 1)}"
        return f"{self.seconds:g} s"


def search_space(
    named: Any, recipe: Recipe, changes: Sequence[str] = (), given: Any = None
) -> dict[str, tuple[Any, ...]]:
    """The settings of a recipe that a search tries.

    Args:
        named: The recipe's name.
        recipe: The recipe with its `changes`, `KEY=VALUE` settings that are no longer to be chosen.
        given: A table in place of the one that the recipe declares.

    Returns:
        Setting → values. A recipe that declares none and trains by gradient has its learning rate,
        a third and three times that; any other nothing.

    Raises:
        ConfigError, UnknownNameError: If a setting or a value can't be used.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"methods.search is {short(repr(given))}.",
            'Example: search = {"training.lr" = [1e-4, 1e-3]}',
        )
    space = given if given is not None else _declared(named, recipe)
    fixed = {".".join(parse_assignment(change)[0]) for change in changes}
    found = {}
    for setting, values in space.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise ConfigError(f"methods.search: {setting} is {short(repr(values))}, not a list.")
        if given is not None:
            for value in values:
                _changed(recipe, {setting: value})
        elif setting in fixed or not _fits(recipe, setting, values):
            continue
        found[setting] = tuple(values)
    return found


def candidates(recipe: Recipe, space: Space, seed: int) -> Iterator[tuple[list[str], Recipe]]:
    """`KEY=VALUE` settings and the recipe with them: first the recipe's own, then every other
    combination of the space in an order that the seed draws, none twice."""
    seen = {_identity(recipe)}
    yield [], recipe
    grid = list(itertools.product(*space.values()))
    random.Random(seed).shuffle(grid)  # noqa: S311
    for values in grid if space else []:
        settings = dict(zip(space, values, strict=True))
        changed = _changed(recipe, settings)
        if (identity := _identity(changed)) not in seen:
            seen.add(identity)
            own = [_assignment(k, v) for k, v in settings.items()]
            yield (
                [a for a in own if _identity(override_recipe(recipe, [a])) != _identity(recipe)],
                changed,
            )


def _fits(recipe: Recipe, setting: str, values: Sequence[Any]) -> bool:
    """Whether the recipe, in which a component may have been replaced, still has the setting."""
    try:
        for value in values:
            _changed(recipe, {setting: value})
    except FusemixError:
        return False
    return True


def _declared(named: Any, recipe: Recipe) -> Space:
    if isinstance(named, str) and not in_file(named):
        try:
            declared = registry.component("recipe", named).search
        except UnknownNameError:
            declared = {}
        if declared:
            return declared
    if recipe.training is None:
        return {}
    rate = recipe.training.lr
    return {"training.lr": (rate, *(float(f"{rate * factor:.2g}") for factor in RATES))}


def _changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these settings, checked."""
    return find_recipe(recipe, [_assignment(k, v) for k, v in settings.items()])


def _assignment(setting: str, value: Any) -> str:
    """`KEY=VALUE` as `--set` reads it."""
    return f"{setting}=none" if value is None else f"{setting}={_as_toml(value)}"


def _as_toml(value: Any) -> str:
    """A value of a setting as TOML has it; a table in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_as_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def _identity(recipe: Recipe) -> str:
    """The recipe as a text in which every option of its parts has a value."""
    values = to_dict(recipe)
    for name in PARTS:
        if (part := getattr(recipe, name)) is not None:
            spec = registry.component("aligner" if name == "start" else name, part.name)
            values[name] = {"name": spec.name, "options": {**spec.options, **part.options}}
    return json.dumps(values, sort_keys=True, default=list)
