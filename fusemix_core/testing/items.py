"""Made-up items for checking encoders: ordinary ones, and those at the edges of a modality."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fusemix_core.data.media import Medium, medium
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

LEAST = 8
"""Sample items that an encoder of another modality brings at least."""


def items_for(target: type[Encoder], spec: EncoderSpec) -> list[Any]:
    """The items to check an encoder on: its own `sample_items`, or else made-up ones.

    Raises ContractError for an encoder of another modality that brings less than `LEAST`.
    """
    items = list(target.sample_items(spec) or made_up(spec))
    if len(items) < LEAST:
        raise ContractError(
            f"Encoder '{spec.name}'",
            f"{LEAST} or more items from its classmethod `sample_items(spec)`, as the kit can't "
            f"make up {spec.modality} items",
            str(len(items)),
        )
    return items


def made_up(spec: EncoderSpec) -> list[Any]:
    """Eight different items of the encoder's medium; none if it has no samples."""
    return _medium(spec).samples(spec)


def edges(spec: EncoderSpec) -> dict[str, Any]:
    """What people's data hold at the edges of the encoder's medium, each by what it is."""
    return _medium(spec).edges(spec)


def wrong_items(spec: EncoderSpec) -> list[Any]:
    """Things that are not item of what the encoder takes."""
    return [object(), None, 3, *_medium(spec).wrong()]


def _medium(spec: EncoderSpec) -> Medium:
    return medium(registry.settled(spec).takes)


def fingerprints(items: Sequence[Any]) -> list[str]:
    """A digest of each item's content, to see whether it was changed."""
    return [hashlib.sha256(_content(item)).hexdigest() for item in items]


def _content(item: Any) -> bytes:
    if isinstance(item, Image.Image):
        return f"{item.mode} {item.size}".encode() + item.tobytes()
    if isinstance(item, Path) and item.is_file():
        return item.read_bytes()
    return pickle.dumps(item)
