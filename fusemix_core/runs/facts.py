"""What a run does with the facts of its data: who uses them, and what is said of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fusemix_core.config import PARTS, DataConfig, Part, Recipe, RunConfig
from fusemix_core.data.cells import FactColumn
from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.registry import Registry, registry

USES = "facts"
"""In a component's `uses`: it reads facts other than trust."""
OPTION = "fact"
"""The option of such a component that names the fact it reads."""


def check_facts(recipe: Recipe, facts: Collection[str], registry: Registry = registry) -> None:
    """Raise `ConfigError` unless the rows have the facts that the recipe's components need.

    A component that uses facts needs one at least; if it has an option `fact`, that one. Trust
    isn't counted: who reads it uses `trust`.
    """
    known = [name for name in facts if name != TRUST]
    for name, part in _users(recipe, registry):
        options = {**registry.check(name, part).options, **part.options}
        if not known:
            raise ConfigError(
                f"The {name} '{part.name}' uses facts of the rows, and none is given.",
                f"Example: --fact {options.get(OPTION) or 'label'}=COLUMN",
            )
        if (wanted := options.get(OPTION)) and wanted not in known:
            hint = f"Add it (--fact {wanted}=COLUMN), or choose: --set {name}.{OPTION}=…"
            raise UnknownNameError.of("fact", wanted, known, hint)


def unused_facts(config: RunConfig, measured: Collection[str] = ()) -> list[str]:
    """A note if facts are given and nothing uses them: neither the recipe nor, by `measured`, what
    the evaluators of the run use."""
    names, recipe = ", ".join(config.data.facts), config.recipe
    if not names or USES in measured or _users(recipe, registry):
        return []
    return [f"Nothing in the recipe {recipe.name} uses facts ({names}): they change nothing."]


def facts_table(facts: Mapping[str, Fact], data: DataConfig) -> dict[str, dict[str, Any]]:
    """fact → its column, kind, how many rows miss it, and the number of its classes."""
    columns = {name: FactColumn.parse(text).column for name, text in data.facts.items()}
    columns[TRUST] = data.trust_column or TRUST
    return {name: {"column": columns[name], **fact.as_dict()} for name, fact in facts.items()}


def _users(recipe: Recipe, registry: Registry) -> list[tuple[str, Part]]:
    """(kind, part) of each component of the recipe that uses facts."""
    parts = [("aligner" if name == "start" else name, getattr(recipe, name)) for name in PARTS]
    parts += [("adapter", part) for part in (recipe.adapters or {}).values()]
    return [
        (kind, part)
        for kind, part in parts
        if part is not None and USES in registry.uses(kind, part)
    ]
