"""HEIC images, by pillow-heif."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.data.media.extras import HEIC

if TYPE_CHECKING:
    from PIL.Image import Image


def read_heic(source: Path | io.BytesIO, most_pixels: int) -> Image:
    """The main image of a HEIC file, turned as the file says.

    Raises:
        DataError: If pillow-heif is missing.
        DecompressionBombError: If it has more than `most_pixels`.
    """
    HEIC.require("a HEIC image")
    import pillow_heif
    from PIL.Image import DecompressionBombError

    image = pillow_heif.open_heif(source, convert_hdr_to_8bit=True)
    width, height = image.size
    if width * height > most_pixels:
        raise DecompressionBombError(f"{width} x {height} pixels")
    return image.to_pillow()
