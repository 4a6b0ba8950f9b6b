"""Evaluators at work: which run, what each gives, and what becomes of one that fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fusemix_core.config import Part
from fusemix_core.errors import ConfigError, ContractError, FusemixError, PluginError
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import PARTS, Measured
from fusemix_core.registry import Registry, registry
from fusemix_core.sections import Section, check_section

FOR_PAIRS = (Part("retrieval"), Part("geometry"))
"""What measures pairs, unless the user says otherwise."""

FOR_CLASSES = (Part("zero-shot"),)
"""What measures items with a class each."""


@dataclass
class Evaluation:
    """What evaluators gave, by their names.

    Attributes:
        metrics: name → metrics, in the order in which the evaluators ran.
        sections: name → what to show, in that order.
        failed: name → error of an evaluator that gave nothing, or no sections.
        data: what gets the notes on the data that was measured, such as `rows` and `warnings`.
    """

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    sections: dict[str, list[Section]] = field(default_factory=dict)
    failed: dict[str, FusemixError] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def evaluators_of(
    parts: Sequence[Part], default: Sequence[Part] = FOR_PAIRS, registry: Registry = registry
) -> dict[str, Evaluator]:
    """The evaluators of a job by their registered names: the default ones, then further ones.

    A part of the name of a default one is that one with other options.

    Raises:
        UnknownNameError: a name or an option that is not registered.
        ConfigError: two parts have one name, or a component is not an `Evaluator`.
    """
    names = [registry.check("evaluator", part).name for part in parts]
    if repeated := [n for n in names if names.count(n) > 1]:
        raise ConfigError(f"The evaluator '{repeated[0]}' is named twice.", "Name it once.")
    own = [p for p in default if registry.check("evaluator", p).name not in names]
    found = {}
    for part in [*own, *parts]:
        name = registry.check("evaluator", part).name
        found[name] = registry.build("evaluator", part)
        if not isinstance(found[name], Evaluator):
            raise ConfigError(f"'{name}' is not a subclass of Evaluator.")
    return found


def check_available(evaluators: Mapping[str, Evaluator], available: Sequence[str]) -> None:
    """Raise `ConfigError` for an evaluator that uses what a job does not have."""
    for name, evaluator in evaluators.items():
        for part in evaluator.uses:
            if part not in PARTS:
                raise ContractError(f"The evaluator '{name}'", f"uses of {', '.join(PARTS)}", part)
            if part not in available:
                raise ConfigError(
                    f"The evaluator '{name}' needs {PARTS[part]}.",
                    "Give them, or leave the evaluator out.",
                )


def evaluate(
    evaluators: Mapping[str, Evaluator], data: Measured, *, show: bool = True
) -> Evaluation:
    """Run evaluators on a split, each on its own: one that fails stops no other.

    Args:
        evaluators: by their registered names.
        data: the split.
        show: whether their sections are wanted.
    """
    done = Evaluation()
    for name, evaluator in evaluators.items():
        try:
            done.metrics[name] = plain_metrics(name, evaluator(data))
            if show:
                done.sections[name] = sections_of(name, evaluator, done.metrics[name], data)
        except (Exception, SystemExit) as error:  # whatever a plugin does, the run goes on
            done.failed[name] = named(name, error)
    return done


def named(name: str, error: BaseException) -> FusemixError:
    """An evaluator's error as one that names the evaluator."""
    if isinstance(error, ContractError):
        return error
    if isinstance(error, FusemixError):
        error.message = f"The evaluator '{name}' failed: {error.message}"
        return error
    wrapped = PluginError(f"The evaluator '{name}' failed: {type(error).__name__}: {error}")
    wrapped.exit_code, wrapped.__cause__ = 1, error
    return wrapped


def sections_of(
    name: str, evaluator: Evaluator, metrics: Mapping[str, Any], data: Measured
) -> list[Section]:
    """The sections of an evaluator's metrics, checked, each with a title."""
    found = list(evaluator.sections(metrics, data))
    for section in found:
        check_section(f"The evaluator '{name}'", section)
    return [replace(section, title=section.title or name) for section in found]


def plain_metrics(name: str, found: Any) -> dict[str, Any]:
    """An evaluator's metrics as plain JSON values; scalars of numpy and torch become numbers.

    Raises:
        ContractError: they are not a mapping, or hold something that JSON can't: NaN, a tensor.
    """
    if not isinstance(found, Mapping):
        raise ContractError(f"The evaluator '{name}'", "metrics by name", type(found).__name__)
    return {str(key): _plain(name, value, str(key)) for key, value in found.items()}


def _plain(name: str, value: Any, at: str) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(name, v, f"{at}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, v, f"{at}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        wanted = "finite numbers, or None"
        raise ContractError(f"The evaluator '{name}'", wanted, f"{value} in {at}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    wanted = "numbers, texts, lists and mappings"
    raise ContractError(f"The evaluator '{name}'", wanted, f"a {type(value).__name__} in {at}")
