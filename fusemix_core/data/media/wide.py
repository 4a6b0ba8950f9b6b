"""Images of more than 8 bits, brought to 8."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

STRETCHED = "hold fewer bits than their 16-bit files: each was stretched to the range in use"
"""What is told of such items, after how many they are."""
_OFFSET = 32768
_BAND = 4 << 20
_HEAD = 64 << 10
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_wide(image: Image) -> bool:
    """Whether an image is grey with more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def eight_bits(image: Image, significant: int | None = None) -> tuple[np.ndarray, bool]:
    """(uint8 `[h, w]` of a wide grey image, whether its 16 bits were stretched).

    16 bits: 0…2^b - 1 → 0…255, where b is as many bits as the greatest value takes, from 8 to 16,
    or `significant`. Signed values that were stored with an offset of 32768 are freed of it. Floats
    within [0, 1] → 0…255. 32-bit integers within 0…255 as they are, within 0…65535 as 16 bits.
    Anything else: least → 0, greatest → 255.

    Args:
        significant: The bits of the values, if the file says so.
    """
    values = np.asarray(image)
    if not all(np.isfinite(values[a:b]).all() for a, b in bands(image)):
        raise DataError("the image contains values that are not finite")
    low, high = float(values.min()), float(values.max())
    stretched = False
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = _range_in_use(values, int(low), int(high), significant)
        stretched = (low, high) != (0, 65535)
        if image.mode == "I" and image.format != "PNG" and high == 255:
            stretched = False  # 32 bits, which nobody fills
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255.0 / (high - low) if high > low else 0.0
    out = np.empty(values.shape, np.uint8)
    for a, b in bands(image):
        out[a:b] = np.rint((values[a:b].astype(np.float64) - low) * scale)
    return out, stretched


def extremes(image: Image) -> list[tuple[float, float]]:
    """(lowest value, highest value) of each band."""
    ends = image.getextrema()
    pairs: list[tuple[float, float]] = [pair for pair in ends if isinstance(pair, tuple)]
    if pairs:
        return pairs
    low, high = (end for end in ends if not isinstance(end, tuple))
    return [(low, high)]


def stretch_colours(image: ImageFile, opened_again: Callable[[], ImageFile]) -> bool:
    """Stretch colours of 16 bits, of which Pillow gives the upper 8, if they use fewer.

    Args:
        image: A file that Pillow opened; its pixels are changed in place.
        opened_again: Opens the same file.

    Returns:
        Whether they were stretched.
    """
    from PIL.Image import fromarray

    if image.mode not in ("RGB", "RGBA") or not _other_half(image):
        return False
    image.load()
    colours = [high for _, high in extremes(image)[:3]]
    if max(colours) >= 128:
        return False
    with opened_again() as again:
        again.tile = _other_half(again)
        again.load()
        high = 1
        for a, b in bands(image):
            values = _joined(image, again, a, b)
            opaque = values.shape[2] == 4 and values[..., 3].max() >= _OFFSET
            high = max(high, int(values[..., : 3 if opaque else None].max()))
        scale = 255.0 / _full_scale(high, None)
        for a, b in bands(image):
            values = np.rint(_joined(image, again, a, b) * scale).clip(0, 255)
            image.paste(fromarray(values.astype(np.uint8)), (0, a))
    return True


def _joined(upper: Image, lower: Image, top: int, bottom: int) -> np.ndarray:
    """uint16 `[h, w, c]` of some rows, from images of their upper and lower bytes."""
    box = (0, top, upper.width, bottom)
    halves = [np.asarray(one.crop(box)).astype(np.uint16) for one in (upper, lower)]
    return (halves[0] << 8) | halves[1]


def _other_half(image: ImageFile) -> list[Any]:
    """The tiles of a file of 16 bits a colour, so that the lower bytes are read; else []."""
    other = {
        ";16B": ";16L",
        ";16L": ";16B",
        ";16N": ";16B" if sys.byteorder == "little" else ";16L",
    }
    tiles = []
    for codec, extents, offset, args in image.tile:
        mode, *more = args if isinstance(args, tuple) else (args,)
        if not isinstance(mode, str) or mode[-4:] not in other:
            return []
        mode = mode[:-4] + other[mode[-4:]]
        tiles.append((codec, extents, offset, (mode, *more) if isinstance(args, tuple) else mode))
    return tiles


def _range_in_use(
    values: np.ndarray, low: int, high: int, significant: int | None
) -> tuple[float, float]:
    """(value that is black, value that is white) of values within 0…65535."""
    if low >= _OFFSET:
        return float(_OFFSET), float(_OFFSET + _full_scale(high - _OFFSET, None))
    if significant and high < 1 << significant and _shifted(values, significant):
        return 0.0, 65535.0
    return 0.0, float(_full_scale(high, significant))


def _full_scale(high: int, significant: int | None) -> int:
    """The greatest value of as many bits as `high` takes, 8 at least, or of those significant."""
    bits = max(high.bit_length(), 8)
    if significant is not None and bits <= significant <= 16:
        bits = significant
    return (1 << bits) - 1


def _shifted(values: np.ndarray, significant: int) -> bool:
    """Whether values of that many bits were moved up to fill 16, as PNG has it."""
    return significant < 16 and not (values & ((1 << (16 - significant)) - 1)).any()


def significant_bits(source: Path | io.BytesIO) -> int | None:
    """What the chunk sBIT of a grey PNG says (PNG 11.3.2.7), None without one."""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            head = file.read(_HEAD)
    else:
        head = source.getbuffer()[:_HEAD].tobytes()
    if not head.startswith(_SIGNATURE):
        return None
    at = len(_SIGNATURE)
    while at + 8 < len(head):
        size, name = int.from_bytes(head[at : at + 4]), head[at + 4 : at + 8]
        if name == b"sBIT" and size == 1:
            return head[at + 8] if 1 <= head[at + 8] <= 16 else None
        if name == b"IDAT":
            return None
        at += 12 + size
    return None


def bands(image: Image) -> Iterator[tuple[int, int]]:
    """(first row, end) of parts of an image of `_BAND` pixels or so."""
    step = max(_BAND // max(image.width, 1), 1)
    for top in range(0, image.height, step):
        yield top, min(top + step, image.height)
