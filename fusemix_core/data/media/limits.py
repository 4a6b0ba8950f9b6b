"""How large an item may be, whatever its medium."""

from __future__ import annotations

MAX_BYTES = 2 << 30
"""The largest image file, or member of an archive, that is read into memory."""
MAX_TEXT = 16 << 20
"""Bytes of the largest file or member that is one text, or the captions of one item."""
