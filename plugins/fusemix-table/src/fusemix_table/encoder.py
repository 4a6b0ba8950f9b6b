"""`ColumnsEncoder`: the columns of a row as one latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ArtefactError, ConfigError, DataError, short
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec
from fusemix_table.inference import Found, infer
from fusemix_table.kinds import Category, Date, Kind, Number, kind_of

_FORCED: Mapping[str, type[Kind] | None] = {
    "number": Number,
    "category": Category,
    "date": Date,
    "drop": None,
}


_LINES = 30
"""Columns that have a line each."""
_NAMED = 5


class ColumnsEncoder(Encoder):
    """Rows, column → value; the latent has the numbers of each column side by side.

    Fitted: kinds, scales and categories are learnt from the training rows. A column that was not
    among them is ignored, and an unseen category is a rare one.

    Args:
        spec: A fitted spec.

    Example:
        spec = ColumnsEncoder.fit(COLUMNS, [{"age": 61, "sex": "f"}, {"age": 34, "sex": "m"}])
        ColumnsEncoder(spec).collate([{"age": 50}])  # float32 [1, dim]
    """

    def __init__(self, spec: EncoderSpec) -> None:
        try:
            self.columns = {
                str(name): kind_of(table)
                for name, table in spec.options["learnt"]["columns"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtefactError(
                f"The findings of the encoder {spec.name} are damaged "
                f"({type(error).__name__}: {error}).",
                "Fit the model again, or fetch it again.",
            ) from error
        self.dim = sum(kind.width + kind.missing for kind in self.columns.values())
        self.spec = replace(spec, dim=self.dim)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    @classmethod
    def fit(cls, spec: EncoderSpec, items: Sequence[Mapping[str, Any]]) -> EncoderSpec:
        """The spec with each column's kind, scale and categories.

        Raises `DataError` if no column is of use, or an option names one that isn't there.
        """
        names = sorted({name for item in items for name in item})
        forced = _forced(spec, names)
        columns: dict[str, Any] = {}
        told: dict[str, str] = {}
        for name in names:
            values = [item.get(name) for item in items]
            found = forced.get(name) or infer(name, values)
            if found.kind is None:
                told[name] = f"left out: {found.why}"
                continue
            kind = found.kind.fit(values)
            columns[name] = kind.as_dict()
            told[name] = _described(kind, values, found.why)
        if not columns:
            raise DataError(
                f"No column of the table is of use ({len(told)}).\n"
                + "\n".join(f"{name}: {line}" for name, line in list(told.items())[:10]),
                f"Force one: -e 'table={spec.name} category=NAME'",
            )
        fitted = replace(
            spec, options={**spec.options, "learnt": {"columns": columns, "told": told}}
        )
        return cls(fitted).spec

    @classmethod
    def learnt(cls, spec: EncoderSpec) -> Sequence[str]:
        """A line for each column; if there are many, one for all that became the same."""
        told = dict(spec.options["learnt"]["told"])
        if len(told) <= _LINES:
            return [f"{name}: {line}" for name, line in told.items()]
        same: dict[str, list[str]] = {}
        for name, line in told.items():
            same.setdefault(line, []).append(name)
        return [f"{_some(names)}: {line}" for line, names in same.items()]

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        return cls(spec)

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Tensor:
        """float32 `[n, dim]`: the latents themselves. Raises TypeError for anything but rows."""
        for item in items:
            if not isinstance(item, Mapping):
                raise TypeError(f"{self.spec.name} takes rows, not {type(item).__name__}")
        parts = [kind.encode([i.get(name) for i in items]) for name, kind in self.columns.items()]
        whole = np.concatenate(parts, axis=1) if len(items) else np.zeros((0, self.dim))
        return torch.from_numpy(whole.astype(np.float32))

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        if view != "pooled":
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        return batch


def _forced(spec: EncoderSpec, names: Sequence[str]) -> dict[str, Found]:
    """Column → what the options of the spec say that it is."""
    found: dict[str, Found] = {}
    for option, kind in _FORCED.items():
        for name in filter(None, map(str.strip, str(spec.options[option]).split(","))):
            if name not in names:
                raise DataError(
                    f"{option}={short(name)}: no training row has this column.",
                    f"Columns: {', '.join(map(short, names[:30]))}",
                )
            found[name] = Found(kind, "as asked")
    return found


def _some(names: Sequence[str]) -> str:
    more = f", … ({len(names) - _NAMED:,} more)" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _described(kind: Kind, values: Sequence[Any], why: str) -> str:
    """A column in a line: "number, 3% missing"."""
    missing = sum(value is None for value in values)
    more = []
    if isinstance(kind, Category):
        different = len({value for value in values if value is not None})
        rare = different - len(kind.levels)
        more.append(f"{different:,} values" + (f", {rare:,} of them rare" if rare > 0 else ""))
    if missing:
        more.append(f"{max(missing / len(values), 0.001):.1%} missing".replace(".0%", "%"))
    if why:
        more.append(why)
    return ", ".join([kind.name, *more])
