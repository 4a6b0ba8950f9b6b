"""The medium `image`."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.foreign import HEAD, described, head_of, is_dicom, is_heic
from fusemix_core.data.media.base import Medium, Shown, kind
from fusemix_core.data.media.dicom import read_dicom
from fusemix_core.data.media.heic import read_heic
from fusemix_core.data.media.in_python import image_of, is_array
from fusemix_core.data.media.limits import MAX_BYTES
from fusemix_core.data.media.wide import (
    STRETCHED,
    bands,
    eight_bits,
    extremes,
    is_wide,
    significant_bits,
    stretch_colours,
)
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from fusemix_core.specs import EncoderSpec

MAX_PIXELS = 178_956_970
"""The largest image that is decoded; Pillow's own limit, held here so that no setting lifts it."""
_BLACK = 8
"""Of 255. An image without anything brighter is black to a viewer."""
_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4
_NOTE = "fusemix: note"
"""Key of `info`: what is to be told of a decoded image."""


class ImageMedium(Medium):
    """A path, bytes or PIL image → PIL image in RGB, turned as its EXIF data say, on white where it
    is transparent."""

    name = "image"
    batch = (32, 128)
    decoding = 2

    def decode(self, value: Any, sample_rate: int | None = None) -> Image:
        return read_image(self.existing(value))

    def note(self, item: Image) -> str:
        return getattr(item, "info", {}).get(_NOTE, "")

    def blank(self, item: Image) -> str:
        ends = extremes(item)
        if all(high <= _BLACK for _, high in ends):
            return "black"
        return "of one colour" if all(low == high for low, high in ends) else ""

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
    head = value[:HEAD] if isinstance(value, bytes) else head_of(where) if where else b""
    try:
        if isinstance(value, Image.Image):
            return _rgb(value)
        if where and where.stat().st_size > MAX_BYTES:
            raise DataError(f"the file is larger than {MAX_BYTES >> 30} GiB")
        source = io.BytesIO(value) if isinstance(value, bytes) else value
        if is_dicom(head):
            return _rgb(read_dicom(source, MAX_PIXELS))
        if is_heic(head):
            return _rgb(read_heic(source, MAX_PIXELS))
        with Image.open(source, formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            if is_wide(image):
                return _rgb(image, significant_bits(source))
            stretched = stretch_colours(image, lambda: Image.open(source, formats=_formats()))
            found = _rgb(image)
            found.info[_NOTE] = STRETCHED if stretched else ""
            return found
    except Image.DecompressionBombError as error:
        raise DataError(f"the image is too large: {error}", path=where) from error
    except Image.UnidentifiedImageError as error:
        found = described(head)
        raise DataError(
            f"the file is not an image: it is {found}"
            if found
            else "the file is not an image that Pillow can read",
            path=where,
        ) from error
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


def _rgb(image: Image, significant: int | None = None) -> Image:
    from PIL import Image

    image.load()
    image = _upright(image)
    if is_wide(image):
        values, stretched = eight_bits(image, significant)
        image = Image.fromarray(values)
        image.info[_NOTE] = STRETCHED if stretched else ""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image) -> Image:
    """The image in RGB, band by band: copies of all of a large one would take gigabytes."""
    from PIL import Image

    out = Image.new("RGB", image.size)
    for top, bottom in bands(image):
        over = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        out.paste(Image.alpha_composite(white, over).convert("RGB"), (0, top))
    return out


def _upright(image: Image) -> Image:
    """The image turned and mirrored as its EXIF orientation says (pixels already loaded)."""
    from PIL import ImageOps

    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # where exif_transpose would give a copy
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: viewers show such a picture as it is stored
        return image
