"""Which task suits the target columns, and why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.tasks.coding import counts_of, fact_of, listed

FEW = 10
"""Whole numbers with at most so many different values are classes,"""
EACH = 3
"""if rows are so many times as many as values."""
CODES = 100
"""Whole numbers with at most so many different values may be codes of classes."""


def choose_task(facts: Mapping[str, Fact], given: str = "auto") -> tuple[str, str]:
    """The name of the task for these facts, and the reason in a sentence.

    Args:
        facts: of the training rows: `target`; or `time` and `event`; or several labels, each under
            its own name.
        given: the user's choice, which is returned as it is; "auto" to choose.

    Raises:
        DataError: no task predicts such a target.

    Example:
        choose_task({"target": Fact("number", prices)})  # ("regress", "target is a number …")
    """
    if given != "auto":
        return given, "you chose it"
    if set(facts) == {"time", "event"}:
        return "survive", "there is a column of times and one of events"
    if len(facts) > 1:
        return _of_several(facts)
    name = next(iter(facts), "target")
    fact = fact_of(facts, name)
    if fact.kind == "grid":
        if np.isin(fact.values[~np.isnan(fact.values)], (0, 1)).all():
            return "occupy", f"the {name} is a grid of cells that are 0 or 1"
        return "segment", f"the {name} is a mask with values other than 0 and 1"
    if fact.kind in ("box", "time"):
        if fact.kind == "box":
            return "box", f"the {name} has boxes"
        raise DataError(
            f"The {name} has dates, and no task predicts these.",
            "Name a column of numbers or classes: --target COLUMN",
        )
    return _of_number(name, fact) if fact.kind == "number" else _of_classes(name, fact)


def _of_several(facts: Mapping[str, Fact]) -> tuple[str, str]:
    more = [name for name, fact in facts.items() if len(counts_of(fact)) > 2]
    if more:
        raise ConfigError(
            f"Several targets are labels, with two values each, and {listed(more)} has more.",
            "Predict one column at a time: --target COLUMN",
        )
    return "multilabel", f"there are {len(facts)} target columns, with at most two values each"


def _of_number(name: str, fact: Fact) -> tuple[str, str]:
    values = fact.values[~fact.missing]
    different = np.unique(values)
    whole = bool(np.isfinite(different).all() and (different == different.round()).all())
    if len(different) <= 2:
        return "classify", f"the {name} has {len(different)} different values"
    if whole and len(different) <= min(FEW, len(values) / EACH):
        return "classify", (
            f"the {name} has {len(different)} different whole numbers; --task ordinal keeps their "
            "order, --task regress predicts a number"
        )
    kind = "whole numbers" if whole else "numbers"
    codes = "; --task classify takes them for classes" if whole and len(different) <= CODES else ""
    return "regress", f"the {name} has {len(different):,} different {kind}{codes}"


def _of_classes(name: str, fact: Fact) -> tuple[str, str]:
    counts = counts_of(fact)
    known = sum(counts.values())
    if known > FEW and len(counts) > known / 2:
        raise DataError(
            f"The {name} has {len(counts):,} different texts in {known:,} rows: free text can't be "
            "predicted.",
            "Name a column of numbers or classes (--target COLUMN), or say that these are classes: "
            "--task classify",
        )
    if len(counts) == 2:
        return "classify", f"the {name} has two values, {listed(list(counts))}"
    return "classify", f"the {name} has {len(counts):,} classes"


def check_groups(groups: Fact, what: str = "group") -> None:
    """Raise `DataError` if rows can't be split by these groups, as all are in one.

    Args:
        groups: the fact that rows are split by; rows without a value are groups of their own.
        what: names it in the error.
    """
    counts = counts_of(groups)
    if len(counts) == 1 and not groups.missing.any():
        (only,) = counts
        raise DataError(
            f"All {len(groups):,} rows have the {what} {listed([only])}: a split by groups would "
            "put all of them in one part.",
            "Name a column that differs between rows, such as a patient: --group-by COLUMN",
        )
