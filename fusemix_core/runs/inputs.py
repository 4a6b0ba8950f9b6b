"""What a caller of the Python functions passes, as the tables of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusemix_core.data.held import data_table
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry

__all__ = ["DataInput", "EncoderInput", "data_table", "encoder_names"]

DataInput = Any
"""Data: a path or several, the fields of `DataConfig`, or a table (see `data_table`)."""

EncoderInput = str | Encoder | type[Encoder]
"""An encoder: a registered name, an Encoder class with a `spec`, or a loaded Encoder."""


def encoder_names(
    encoders: Mapping[str, EncoderInput],
) -> tuple[dict[str, str], dict[str, Encoder]]:
    """(modality → name, modality → loaded Encoder where one was given). Classes and the specs of
    loaded encoders are registered."""
    for encoder in encoders.values():
        if not isinstance(encoder, str):
            registry.add(encoder if isinstance(encoder, type) else encoder.spec)
    names = {m: e if isinstance(e, str) else e.spec.name for m, e in encoders.items()}
    return names, {m: e for m, e in encoders.items() if isinstance(e, Encoder)}
