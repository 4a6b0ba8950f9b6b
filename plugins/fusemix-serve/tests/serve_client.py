"""What tests send: JSON by the standard library, and items as data URIs."""

from __future__ import annotations

import base64
import io
import json
import struct
import urllib.error
import urllib.request
import zlib
from types import SimpleNamespace

import numpy as np
import soundfile
from PIL import Image


def ask(url, body=None, headers=None, method=None, raw=None):
    """An answer: its `status`, `headers`, `body` and, if it is JSON, `json`."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    own = {"Content-Type": "application/json"} if data is not None else {}
    headers = own | (headers or {})
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=60) as answer:
            return _answer(answer, answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error, error.code)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def _answer(answer, status):
    body = answer.read()
    parsed = json.loads(body) if answer.headers.get_content_type() == "application/json" else None
    return SimpleNamespace(status=status, headers=answer.headers, body=body, json=parsed)


def data_uri(data, kind):
    """Bytes as `data:…;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_bytes(colour=(220, 30, 30), size=(12, 12), form="PNG"):
    """A patch of colour as a file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


def sound_bytes(seconds=0.25, rate=8000, pitch=500):
    """A tone as a WAV file."""
    buffer = io.BytesIO()
    tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    soundfile.write(buffer, tone, rate, format="WAV")
    return buffer.getvalue()


def png_that_claims(width, height):
    """A PNG file of a few bytes whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    written = [
        struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d))
        for name, d in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)
