"""What a caller of the Python functions passes, as the tables of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusemix_core.data.held import data_table
from fusemix_core.encoders.matrix import MatrixEncoder
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry

__all__ = ["DataInput", "EncoderInput", "data_table", "encoder_names", "table_of"]

DataInput = Any
"""Data: a path or several, the fields of `DataConfig`, or a table (see `data_table`)."""

EncoderInput = Any
"""An encoder: a registered name, an Encoder class with a `spec`, a loaded Encoder, or latents that
exist already: a numpy array or tensor `[n, d]`, whose items are the numbers of its rows."""


def encoder_names(
    encoders: Mapping[str, EncoderInput],
) -> tuple[dict[str, str], dict[str, Encoder]]:
    """(modality → name, modality → loaded Encoder if one was given). Classes and the specs of
    loaded encoders are registered."""
    encoders = {m: MatrixEncoder.of(e, m) if is_matrix(e) else e for m, e in encoders.items()}
    for encoder in encoders.values():
        if not isinstance(encoder, str):
            registry.add(encoder if isinstance(encoder, type) else encoder.spec)
    names = {m: e if isinstance(e, str) else e.spec.name for m, e in encoders.items()}
    return names, {m: e for m, e in encoders.items() if isinstance(e, Encoder)}


def is_matrix(value: Any) -> bool:
    """Whether it is latents rather than an encoder: an array or tensor."""
    return hasattr(value, "ndim") and hasattr(value, "dtype")


def table_of(data: DataInput | None, objects: Mapping[str, Encoder], names: int) -> dict[str, Any]:
    """The fields of `DataConfig` from what `data_table` takes. If there are no data and all of so
    many encoders are ready latents, their rows are pairs."""
    if data is not None:
        return data_table(data)
    ready = {m: e.ids() for m, e in objects.items() if isinstance(e, MatrixEncoder)}
    if len(ready) < names:
        return {}
    return data_table(ready) | {"columns": {m: m for m in ready}}
