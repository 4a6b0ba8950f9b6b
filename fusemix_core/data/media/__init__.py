"""How items arrive: the media text, image, audio and file, and those that plugins bring."""

from __future__ import annotations

from functools import cache
from typing import Any

from fusemix_core.data.media.audio import Audio
from fusemix_core.data.media.base import Medium, Shown
from fusemix_core.data.media.limits import MAX_BYTES, MAX_TEXT
from fusemix_core.data.media.text import normalise_text
from fusemix_core.registry import registry

__all__ = [
    "MAX_BYTES",
    "MAX_TEXT",
    "Audio",
    "Medium",
    "Shown",
    "decode",
    "medium",
    "normalise_text",
]


def medium(name: str) -> Medium:
    """The medium of that name. Raises `UnknownNameError`."""
    return _made(registry.target_of(registry.component("medium", name)))


@cache
def _made(target: type[Medium]) -> Medium:
    return target()


def decode(value: Any, takes: str, sample_rate: int | None = None) -> Any:
    """An item as an encoder that `takes` this medium wants it; see `Medium.decode`.

    `text`: str (or UTF-8 bytes, or the Path of a text file) → normalised str;
    `image`: path, bytes or PIL image → PIL image in RGB, turned as its EXIF data say, on white
    if it is transparent;
    `audio`: path, bytes, `Audio` or `(samples, rate)` → `Audio`, mono, at `sample_rate` (None: as
    it is); samples are `[n]`, `[n, channels]` or `[channels, n]`, floats in [-1, 1] or integers;
    `file`: path → existing `Path`.

    Raises `DataError` if the value can't be read so.
    """
    return medium(takes).decode(value, sample_rate)
