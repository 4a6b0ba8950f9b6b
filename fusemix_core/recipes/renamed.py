"""Recipes as runs recorded them before the default was called `auto`, and had a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a recipe under its present name.

    Runs recorded the default as `fusemix` and the method as published as `fusemix-paper`. Of the
    recipes called `fusemix` only the former default has the aligner `cca`. With that aligner the
    default has no network.
    """
    table = dict(table)
    aligner = table.get("aligner")
    aligner = aligner.get("name") if isinstance(aligner, Mapping) else aligner
    if table.get("name") == "fusemix-paper":
        table["name"] = "fusemix"
    elif table.get("name") == "fusemix" and aligner == "cca":
        table["name"] = "auto"
    if table.get("name") == "auto" and aligner == "cca":
        table = {**dict.fromkeys(("adapter", "objective", "training")), **table}
    return table
