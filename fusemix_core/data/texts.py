"""The text in a cell: as it stands, or as bytes somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusemix_core.data.media import MAX_TEXT, decode, normalise_text
from fusemix_core.data.references import Fault, Reference, SliceReference
from fusemix_core.errors import DataError


def text_of(value: Any) -> str | Fault:
    """The normalised text that a cell holds, "" where nothing is left of it."""
    if isinstance(value, Fault):
        return value
    if isinstance(value, SliceReference) and value.size > MAX_TEXT:
        return Fault(f"{value} is larger than {MAX_TEXT >> 20} MiB")
    if isinstance(value, bytes | Path | Reference):
        try:
            return decode(value if isinstance(value, bytes | Path) else value.read(), "text")
        except DataError as error:
            return "" if error.message == "empty text" else Fault(f"{error.message}")
        except OSError as error:
            return Fault(f"{value} can't be read: {error}")
    if not isinstance(value, str | int | float):
        return Fault(f"holds a {type(value).__name__}, not a text")
    text = normalise_text(str(value))
    try:
        text.encode()
    except UnicodeEncodeError:
        return Fault("the text holds half a surrogate pair")
    return text
