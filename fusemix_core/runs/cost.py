"""What encoding will cost, before it starts: an estimate from the length of the texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusemix_core.data.items import Items
from fusemix_core.data.media.text import CHARACTERS_PER_TOKEN
from fusemix_core.data.references import FileReference, Reference, SliceReference
from fusemix_core.specs import EncoderSpec


def estimate_tokens(spec: EncoderSpec, items: Items, missing: np.ndarray) -> int | None:
    """Tokens of the items `missing` (int64 indices) of an encoder that has a price, else None.

    Texts that lie in files are measured by their size, and not read.
    """
    if not spec.price or spec.takes != "text":
        return None
    length = sum(_length(items.references[i]) for i in missing)
    return round((length + len(missing) * len(spec.prompt)) / CHARACTERS_PER_TOKEN)


def _length(text: str | Reference) -> int:
    if isinstance(text, str):
        return len(text)
    if isinstance(text, FileReference):
        return Path(text.path).stat().st_size
    return text.size if isinstance(text, SliceReference) else len(text.read())
