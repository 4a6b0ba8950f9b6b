"""Tables as a modality: the columns of a row as one latent. Metadata only; imports neither torch
nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec

COLUMNS = EncoderSpec(
    name="columns",
    modality="table",
    target="fusemix_table.encoder:ColumnsEncoder",
    summary="numbers, categories and dates of a row; fitted to the training rows, no weights",
    parameters=0,
    fitted=True,
    options={"number": "", "category": "", "date": "", "drop": "", "learnt": None},
)
"""`number`, `category`, `date`: columns, comma-separated, that are of this kind whatever they look
like. `drop`: columns that are left out."""


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """One encoder of rows."""
    return [COLUMNS]
