"""How tasks read facts: classes, numbers, and the errors for targets without use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError, short
from fusemix_core.prediction import Targets

SHOWN = 5
"""Names that a message lists."""


def labels_of(fact: Fact) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes of a fact, and int64 `[n]` indices into them, -1 where missing.

    Numbers are classes by their value, in its order: `1` and `2.5`. Only classes that a row has are
    returned.
    """
    if fact.kind in ("class", "text"):
        used, index = np.unique(fact.values, return_inverse=True)
        names = [fact.names[i] for i in used[used >= 0]]
        index = index - int((used < 0).any())
        if fact.kind == "class":
            return tuple(names), index
        order = np.argsort(np.array(names, dtype=object), kind="stable")
        place = np.argsort(order)
        return tuple(names[i] for i in order), np.where(index >= 0, place[index], -1)
    if fact.kind not in ("number", "time"):
        raise _wrong_kind(fact, "classes")
    missing = fact.missing
    used, index = np.unique(fact.values[~missing], return_inverse=True)
    filled = np.full(len(fact), -1, np.int64)
    filled[~missing] = index
    return tuple(_shown(value) for value in used), filled


def as_text(value: object) -> str:
    """A class that an option names, as `labels_of` names it: `1` of 1 and of 1.0, `true` of True.

    Nothing is "".
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return _shown(np.float64(value)) if isinstance(value, int | float) else str(value)


def as_texts(values: object) -> list[str]:
    """Several classes that an option names: a list, or texts with commas between them."""
    if values is None or values == "":
        return []
    if isinstance(values, str):
        return [part.strip() for part in values.split(",")]
    return [as_text(v) for v in values] if isinstance(values, list | tuple) else [as_text(values)]


def _shown(value: np.floating) -> str:
    return np.format_float_positional(value, trim="-") if np.isfinite(value) else str(value)


def coded(fact: Fact, classes: Sequence[str]) -> np.ndarray:
    """int64 `[n]`: the place of each row's class in `classes`, -1 if missing or not there."""
    names, index = labels_of(fact)
    place = {name: i for i, name in enumerate(classes)}
    table = np.array([*(place.get(name, -1) for name in names), -1], np.int64)
    return table[index]


def counts_of(fact: Fact) -> dict[str, int]:
    """Class → how many rows have it."""
    names, index = labels_of(fact)
    return dict(zip(names, np.bincount(index[index >= 0], minlength=len(names)), strict=True))


def unseen_of(fact: Fact, classes: Sequence[str]) -> dict[str, int]:
    """Class → rows, of the classes that aren't among `classes`."""
    known = set(classes)
    return {name: int(count) for name, count in counts_of(fact).items() if name not in known}


def numbers_of(fact: Fact, what: str) -> np.ndarray:
    """float64 `[n]` of a fact of numbers, NaN where missing; `what` names it in errors.

    Raises `DataError` for another kind, and for infinite values.
    """
    if fact.kind != "number":
        raise _wrong_kind(fact, "numbers", what)
    values = fact.values.astype(np.float64)
    if count := int(np.isinf(values).sum()):
        first = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(
            f"The {what} is infinite in {count:,} rows, first in row {first + 1:,} of these.",
            "Leave their cells empty, or write finite numbers.",
        )
    return values


def fact_of(facts: Mapping[str, Fact], name: str) -> Fact:
    """The fact of a name. Raises `DataError` if there is none, or if all its values are missing."""
    if name not in facts:
        raise DataError(f"There is no {name}.", f"Name its column: --{name} COLUMN")
    fact = facts[name]
    if len(fact) == 0 or fact.missing.all():
        raise DataError(
            f"The {name} is missing in all {len(fact):,} training rows.",
            f"Name a column that is filled: --{name} COLUMN. If it is split by group, see whether "
            "the rows with a value are all in other splits.",
        )
    return fact


def one_class(what: str, name: str, count: int) -> DataError:
    """The error for a target with a single class."""
    return DataError(
        f"The {what} is '{short(name)}' in all {count:,} training rows that have one: there is "
        "nothing to predict.",
        "Add rows of another class, or name another column: --target COLUMN",
    )


def single_rows(counts: Mapping[str, int], names: Sequence[str]) -> list[str]:
    """A note on the classes with a single training row, if there are any."""
    rare = [name for name in names if counts.get(name) == 1]
    if not rare:
        return []
    classes = f"The class {listed(rare)} has" if len(rare) == 1 else f"{listed(rare)} have"
    return [
        f"{classes} a single training row: too little to learn from or to validate with. Add rows, "
        "or merge or remove rare classes."
    ]


def known_rows(scores: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """(float64 scores, values) of the known rows, on the CPU. Raises `DataError` if there are none.

    For targets whose `known` is `[n]`.
    """
    known = targets.known.cpu()
    if not known.any():
        raise DataError(
            f"The target isn't known in any of {len(known):,} rows: nothing can be measured.",
            "Fill in the target's column, or predict without measuring.",
        )
    return scores.detach().cpu().double()[known], targets.values.cpu()[known]


def mean_of(values: Tensor, known: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted mean of the known values, 0 with a gradient if none is known.

    Args:
        values: `[n]` or `[n, C]`; known: bool of that shape; weight: `[n]` or of that shape.
    """
    share = known.to(values.dtype)
    if weight is not None:
        weight = weight.to(values.dtype)
        share = share * (weight[:, None] if weight.ndim < values.ndim else weight)
    total = torch.where(known, values, 0.0) * share
    return total.sum() / share.sum().clamp(min=torch.finfo(values.dtype).tiny)


def defined(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics with None for NaN, as JSON stores them."""
    return {name: None if np.isnan(value) else float(value) for name, value in metrics.items()}


def listed(names: Sequence[str]) -> str:
    """Names as a message lists them: the first few, and how many more there are."""
    shown = ", ".join(f"'{short(name, 40)}'" for name in names[:SHOWN])
    rest = len(names) - SHOWN
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _wrong_kind(fact: Fact, wanted: str, what: str = "target") -> DataError:
    found = {"box": "boxes", "class": "classes"}
    found |= {kind: f"{kind}s" for kind in ("time", "text", "grid")}
    return DataError(
        f"The {what} has {found.get(fact.kind, fact.kind)}; this task needs {wanted}.",
        "Name the kind of the column (--target COLUMN:number, COLUMN:class) or another task: "
        "--task auto",
    )
