"""Says what a file is that is not what its name promises, from its first bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path

HEAD = 512
"""Bytes that are enough to know a file by."""
LFS = b"version https://git-lfs.github.com/spec/"
_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I
)
_SVG = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!doctype\s+svg[^>]*>\s*)*<(svg:)?svg\b", re.I | re.S
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (LFS, "a Git LFS pointer, not the file itself", "Fetch the file: git lfs pull"),
    (b"PK\x03\x04", "a zip archive (or an Excel or Word file)",
     "Unpack it with unzip; save a spreadsheet as CSV."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: gunzip FILE"),
    (b"BZh", "compressed with bzip2", "Unpack it: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "compressed with xz", "Unpack it: unxz FILE"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it: unzstd FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it: 7z x FILE"),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it: unrar x FILE"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file", "Save it as CSV."),
    (b"SQLite format 3\x00", "an SQLite database", "Export the table as CSV."),
    (b"PAR1", "a Parquet file", "Name it .parquet."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet."),
    (b"%PDF-", "a PDF document", ""),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "Export the table as CSV or Parquet."),
    (b"fLaC\x00", "a FLAC sound", ""),
    (b"OggS\x00", "an Ogg file", ""),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image", "Convert it to PNG."),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file", "Convert it with ffmpeg."),
    (b"\x1a\x45\xdf\xa3", "a WebM or Matroska file", ""),
    (b"<?xml", "an XML document", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", ""),
)  # fmt: skip


def what_is(head: bytes) -> tuple[str, str] | None:
    """(what a file is, what to do about it) from its first `HEAD` bytes; None if unknown.

    Example:
        >>> what_is(b"<!DOCTYPE html><html>")[0]
        'an HTML page, not the file itself'
    """
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        return (
            "an HTML page, not the file itself",
            "The download met a login or error page: download the file again.",
        )
    if _SVG.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "an SVG drawing", "Convert it to PNG."
    if is_dicom(head):
        return "a DICOM file", ""
    if is_heic(head):
        return "a HEIC image", ""
    if head[4:8] == b"ftyp":
        return "an MPEG-4 file (m4a, mp4, mov)", ""
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP"):
        return ("a WAV sound" if head[8:12] == b"WAVE" else "a WebP image"), ""
    return next(((what, hint) for magic, what, hint in _MAGIC if head.startswith(magic)), None)


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM files do (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


def is_heic(head: bytes) -> bool:
    """Whether a file begins as HEIC images do (ISO/IEC 23008-12, 10.2)."""
    if head[4:8] != b"ftyp" or head[8:12] == b"avif":
        return False
    end = min(int.from_bytes(head[:4]), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    return not brands.isdisjoint(_HEIC) and b"avif" not in brands


def described(head: bytes) -> str:
    """What a file is and what to do about it, in a clause; "" if unknown."""
    what, hint = what_is(head) or ("", "")
    return f"{what}. {hint}".rstrip(". ") if what else ""


def head_of(path: str | Path) -> bytes:
    """The first bytes of a regular file; b"" of anything else."""
    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(HEAD)
    except (OSError, ValueError):
        pass
    return b""
