"""`--set KEY=VALUE`: a recipe with some settings in place of its own. Standard library only."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from fusemix_core.config import PARTS, Recipe, from_dict, parse_assignment, parse_part, to_dict
from fusemix_core.errors import ConfigError, UnknownNameError, short


def override_recipe(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """`recipe` with `key=value` overrides: `dim=256`, `adapter=linear`, `adapter.blocks=2`,
    `adapter=mlp blocks=2`, `adapters.text=linear` (that of one modality; its options on from those
    it has), `objective.options.queue=64` (an option of the objective that the recipe's wraps), …

    Raises ConfigError for a setting that can't be used.
    """
    values = to_dict(recipe)
    for text in assignments:
        path, value = parse_assignment(text)
        table, fields_here = values, {f.name: f for f in dataclasses.fields(Recipe)}
        if path[0] not in fields_here or path[0] == "name":
            raise UnknownNameError.of("setting", path[0], set(fields_here) - {"name"})
        is_part = path[0] in PARTS
        if path[0] == "adapters" and len(path) > 1:
            table, path, is_part = _inside(table, "adapters", text), path[1:], True
            if len(path) > 1 and path[0] not in table:
                table[path[0]] = copy.deepcopy(values.get("adapter"))
        if len(path) == 1:
            if is_part and isinstance(value, str):
                value = to_dict(parse_part(value)) if " " in value else {"name": value}
            table[path[0]] = value
            continue
        if not is_part and path[0] != "training":
            raise ConfigError(f"'{text}': {path[0]} has no settings inside it.")
        table = _inside(table, path[0], text)
        if is_part and path[1] != "name":
            table = _inside(table, "options", text)
        for key in path[1:-1]:  # options of a component that another one wraps
            if not (is_part and key.endswith("options")):
                raise ConfigError(
                    f"'{text}' is nested too deep.",
                    "Settings are KEY, PART.KEY, and PART.options.KEY of what the part wraps.",
                )
            table = _inside(table, key, text)
        table[path[-1]] = value
    return from_dict(Recipe, {k: v for k, v in values.items() if v is not None})


def _inside(table: dict[str, Any], key: str, text: str) -> dict[str, Any]:
    """The table that is in another under `key`; made if there is none."""
    if table.get(key) is None:
        table[key] = {}
    if not isinstance(table[key], dict):
        raise ConfigError(f"'{text}': {key} is {table[key]!r}, which has no settings inside it.")
    return table[key]


def in_order(assignments: Sequence[str]) -> list[str]:
    """The settings of one command, as they are: none may undo an earlier one.

    Raises ConfigError for `objective.margin=0.1` before `objective=hinge`: a part of another name
    has none of the options of the former.
    """
    paths = [parse_assignment(text)[0] for text in assignments]
    for i, path in enumerate(paths):
        for j in range(i):
            if len(path) < len(paths[j]) and paths[j][: len(path)] == path:
                first, last = short(assignments[j]), short(assignments[i])
                raise ConfigError(
                    f"'{last}' would undo '{first}', which comes before it.",
                    f"Change their order: --set {last} --set {first}",
                )
    return list(assignments)
