"""What encoding will cost, before it starts: an estimate from the length of the texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fusemix_core.data.items import Items
from fusemix_core.data.media.text import CHARACTERS_PER_TOKEN
from fusemix_core.data.references import FileReference, Reference, SliceReference
from fusemix_core.specs import EncoderSpec

_WIDE = "\u2e80"
"""The first character of the scripts of East Asia."""


def estimate_tokens(spec: EncoderSpec, items: Items, missing: np.ndarray) -> int | None:
    """Tokens of the items `missing` (int64 indices) of an encoder that has a price, else None.

    Texts that lie in files are measured by their size, and not read.
    """
    if not spec.price or spec.takes != "text":
        return None
    length = sum(_length(items.references[i]) for i in missing)
    return round((length + len(missing) * len(spec.prompt)) / CHARACTERS_PER_TOKEN)


def long_texts(specs: Mapping[str, EncoderSpec], items: Mapping[str, Items]) -> list[str]:
    """A warning for each modality some of whose texts are probably longer than its encoder takes.

    It is an estimate from their length: no tokenizer is loaded.
    """
    warnings = []
    for modality, spec in specs.items():
        if texts := cut_texts(spec, items[modality]):
            warnings.append(
                f"About {len(texts):,} of {len(items[modality]):,} {modality} items may be cut: "
                f"{spec.name} takes {spec.max_tokens:,} tokens. Estimated from their length."
            )
    return warnings


def cut_texts(spec: EncoderSpec, items: Items) -> list[str]:
    """The texts that are probably longer than an encoder takes."""
    most = spec.max_tokens
    if spec.takes != "text" or most is None:
        return []
    texts = [t for t in items.references if isinstance(t, str) and len(t) > most]
    return [text for text in texts if _tokens(text) > most]


def _tokens(text: str) -> float:
    """About how many tokens a text has; a character of a script without spaces is one."""
    wide = sum(character > _WIDE for character in text) if not text.isascii() else 0
    return max(len(text.split()), (len(text) - wide) / CHARACTERS_PER_TOKEN + wide)


def _length(text: str | Reference) -> int:
    if isinstance(text, str):
        return len(text)
    if isinstance(text, FileReference):
        return Path(text.path).stat().st_size
    return text.size if isinstance(text, SliceReference) else len(text.read())
