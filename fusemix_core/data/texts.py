"""What a cell holds itself: a text, as it is or as bytes somewhere, or another inline item."""

from __future__ import annotations

from typing import Any

from fusemix_core.data.media import MAX_TEXT, Medium, medium
from fusemix_core.data.references import Fault, Reference, SliceReference
from fusemix_core.errors import DataError


def text_of(value: Any) -> str | Fault:
    """The normalised text that a cell contains, "" if nothing is left of it."""
    return inline_of(value, medium("text"))


def inline_of(value: Any, how: Medium) -> str | Fault:
    """The item that a cell holds itself, as text; "" for an empty cell."""
    if isinstance(value, Fault):
        return value
    if isinstance(value, SliceReference) and value.size > MAX_TEXT:
        return Fault(f"{value} is larger than {MAX_TEXT >> 20} MiB")
    try:
        return how.cell(value.read() if isinstance(value, Reference) else value)
    except DataError as error:
        return Fault(error.message)
    except OSError as error:
        return Fault(f"{value} can't be read: {error}")
