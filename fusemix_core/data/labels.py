"""Names of class labels, which the `datasets` package stores as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fusemix_core.data.references import Fault

_MAX_JSON = 16 << 20


def class_names(features: Any) -> dict[str, list[str]]:
    """Column → the names of its classes, from the `features` that a dataset tells of itself.

    A column of lists of labels is among them.
    """
    found = {}
    for column, feature in (features if isinstance(features, dict) else {}).items():
        while isinstance(feature, dict | list) and _inner(feature) is not None:
            feature = _inner(feature)
        if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
            continue
        names = feature.get("names")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = names
    return found


def _inner(feature: Any) -> Any:
    """The feature of the entries of a list."""
    if isinstance(feature, list):
        return feature[0] if len(feature) == 1 else None
    return feature.get("feature") if feature.get("_type") != "ClassLabel" else None


def names_in_schema(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """`class_names` of an Arrow schema, as `datasets` writes them into Parquet files."""
    told = (metadata or {}).get(b"huggingface", b"")
    try:
        info = json.loads(told) if len(told) <= _MAX_JSON else {}
        return class_names(info["info"]["features"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def named(value: Any, names: Sequence[str]) -> Any:
    """The names in place of the numbers in a cell; -1 is missing, as `datasets` has it."""
    if isinstance(value, list):
        return [named(one, names) for one in value]
    if type(value) is not int:
        return value
    if value == -1:
        return None
    if 0 <= value < len(names):
        return names[value]
    return Fault(f"is {value}, which is not one of the {len(names)} class labels")
