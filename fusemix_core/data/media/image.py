"""The medium `image`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.media.base import Medium, Shown, kind
from fusemix_core.data.media.in_python import image_of, is_array
from fusemix_core.data.media.limits import MAX_BYTES
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from fusemix_core.specs import EncoderSpec

MAX_PIXELS = 178_956_970
"""The largest image that is decoded; Pillow's own limit, held here so that no setting lifts it."""
_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4
_BAND = 4 << 20


class ImageMedium(Medium):
    """A path, bytes or PIL image → PIL image in RGB, turned as its EXIF data say, on white where it
    is transparent."""

    name = "image"
    batch = (32, 128)

    def decode(self, value: Any, sample_rate: int | None = None) -> Image:
        return read_image(self.existing(value))

    def pack(self, value: Any) -> bytes:
        """As PNG."""
        buffer = io.BytesIO()
        self.decode(value).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def show(self, described: str, load: Callable[[], Any]) -> Shown:
        try:
            return Shown(image=load(), note=described)
        except DataError as error:
            return Shown(note=f"{described} ({error.message})")

    def example(self, count: int = 1) -> list[str]:
        return ["photo.jpg", "drawing.png"][:count]

    def samples(self, spec: EncoderSpec) -> list[Image]:
        noise = np.random.default_rng(0)
        sizes = [(32, 32), (200, 100), (64, 90), (3, 5), (224, 224), (150, 130), (90, 90), (17, 80)]
        return [_picture(noise.integers(0, 256, (h, w, 3))) for w, h in sizes]

    def edges(self, spec: EncoderSpec) -> dict[str, Image]:
        grey = np.tile(np.arange(64)[:, None, None], (1, 64, 3))
        return {
            "one pixel": _picture(np.full((1, 1, 3), 200)),
            "one row": _picture(np.arange(600).reshape(1, 200, 3) % 256),
            "one column": _picture(np.arange(600).reshape(200, 1, 3) % 256),
            "a strip 300 times as wide as high": _picture(np.arange(3600).reshape(2, 600, 3) % 256),
            "black": _picture(np.zeros((40, 40, 3))),
            "white": _picture(np.full((40, 40, 3), 255)),
            "grey": _picture(grey),
        }

    def wrong(self) -> list[Any]:
        return ["picture.png"]


def _picture(values: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(np.asarray(values).astype(np.uint8))


def read_image(value: Any) -> Image:
    """The picture that a viewer would show, in RGB."""
    from PIL import Image

    if is_array(value):
        value = image_of(value)
    if not isinstance(value, Path | bytes | Image.Image):
        raise DataError(f"an image is wanted, not {kind(value)}")
    where = value if isinstance(value, Path) else None
    try:
        if isinstance(value, Image.Image):
            return _rgb(value)
        if where and where.stat().st_size > MAX_BYTES:
            raise DataError(f"the file is larger than {MAX_BYTES >> 30} GiB")
        source = io.BytesIO(value) if isinstance(value, bytes) else value
        with Image.open(source, formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            return _rgb(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"the image is too large: {error}", path=where) from error
    except Image.UnidentifiedImageError as error:
        raise DataError("the file is not an image that Pillow can read", path=where) from error
    except DataError as error:
        raise DataError(error.message, path=where) from error
    except Exception as error:  # decoders meet any bytes and raise anything
        raise DataError(
            f"the image is damaged: {error or type(error).__name__}", path=where
        ) from error


@cache
def _formats() -> tuple[str, ...]:
    """Pillow's formats, but for EPS: it would have a program written in the file run."""
    from PIL import Image

    Image.init()
    return tuple(form for form in Image.ID if form != "EPS")


def _rgb(image: Image) -> Image:
    from PIL import Image

    image.load()
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_eight_bits(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image) -> Image:
    """The image in RGB, band by band: copies of all of a large one would take gigabytes."""
    from PIL import Image

    out = Image.new("RGB", image.size)
    for top, bottom in _bands(image):
        over = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        out.paste(Image.alpha_composite(white, over).convert("RGB"), (0, top))
    return out


def _bands(image: Image) -> Iterator[tuple[int, int]]:
    """(first row, end) of parts of an image of `_BAND` pixels or so."""
    step = max(_BAND // max(image.width, 1), 1)
    for top in range(0, image.height, step):
        yield top, min(top + step, image.height)


def _upright(image: Image) -> Image:
    """The image turned and mirrored as its EXIF orientation says (pixels already loaded)."""
    from PIL import ImageOps

    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # where exif_transpose would give a copy
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: viewers show such a picture as it is stored
        return image


def _eight_bits(image: Image) -> np.ndarray:
    """uint8 `[h, w]` of a grey image with wider values.

    16 bits: 0…65535 → 0…255. Floats within [0, 1] → 0…255. 32-bit integers within 0…255 as they
    are, within 0…65535 as 16 bits. Anything else: least → 0, greatest → 255.
    """
    values = np.asarray(image)
    if not all(np.isfinite(values[a:b]).all() for a, b in _bands(image)):
        raise DataError("the image holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        low, high = 0.0, 65535.0
    elif image.mode == "I" and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255.0 / (high - low) if high > low else 0.0
    out = np.empty(values.shape, np.uint8)
    for a, b in _bands(image):
        out[a:b] = np.rint((values[a:b].astype(np.float64) - low) * scale)
    return out
