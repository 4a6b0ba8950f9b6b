"""`/thumb` and `/media`: items of the collection by their key, never by a path."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from fusemix_core.data.media import medium
from fusemix_core.errors import DataError
from fusemix_serve.gallery import Gallery
from fusemix_serve.inputs import image_size
from fusemix_serve.replies import Refused
from fusemix_serve.state import gallery_of, state_of

_KEY = re.compile(r"[0-9a-f]{32}")
_SIDE = 256
TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
"""Types that a browser shows or plays. All else is a download: SVG and HTML can run scripts."""
_HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",  # a key is that of the content
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

_GONE = Refused(404, "The item's file is no longer there.", "Run `fusemix index update`.")


async def thumb(request: Request) -> Response:
    """GET: a small picture of an image, at most 256 pixels a side."""
    state, gallery, key = state_of(request), gallery_of(request), key_of(request)
    data = state.thumbs.get(key)
    if data is None:
        data = await state.workers.run(thumbnail, gallery, key, state.settings.limits.pixels)
        state.thumbs.put(key, data)
    return Response(data, media_type="image/webp", headers=_HEADERS)


async def media(request: Request) -> Response:
    """GET: an item as it is."""
    state, gallery, key = state_of(request), gallery_of(request), key_of(request)
    found, name = await state.workers.run(_media, gallery, key)
    kind = TYPES.get(Path(name).suffix.lower())
    headers = dict(_HEADERS)
    if kind is None:
        headers["Content-Disposition"] = "attachment"
    if isinstance(found, Path):
        return FileResponse(found, headers=headers, media_type=kind or "application/octet-stream")
    if isinstance(found, str):
        return Response(found, headers=_HEADERS, media_type="text/plain; charset=utf-8")
    return Response(found, headers=headers, media_type=kind or "application/octet-stream")


def key_of(request: Request) -> str:
    """The key in a request's path. Raises `Refused` if it isn't one."""
    return checked_key(request.path_params["key"])


def checked_key(key: Any) -> str:
    """A key in hex. Raises `Refused` if it isn't one."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise Refused(404, "A key is 32 hexadecimal digits.")
    return key


def _media(gallery: Gallery, key: str) -> tuple[Any, str]:
    """(a path, text or bytes, the name of the file)."""
    try:
        (record,) = gallery.collection.items([key])
        found = gallery.collection.media(key)
    except KeyError as error:
        raise Refused(404, "The collection has no item of this key.") from error
    except DataError as error:
        raise _GONE from error
    if isinstance(found, Path) and not found.is_file():
        raise _GONE
    return found, record.item


def thumbnail(gallery: Gallery, key: str, pixels: int) -> bytes:
    """A WebP of at most 256 pixels a side of an image. Raises `Refused`."""
    found, _ = _media(gallery, key)
    modality = gallery.modality_of(key)
    if modality is None or gallery.takes(modality) != "image":
        raise Refused(404, "Only images have thumbnails.")
    data = found.read_bytes() if isinstance(found, Path) else found
    width, height = image_size(data)
    if width * height > pixels:
        raise Refused(413, "The image has too many pixels to be shown small.")
    image = medium("image").decode(data)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
