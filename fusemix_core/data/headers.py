"""The shapes of arrays in a file, read from its headers only. Imports neither torch nor numpy."""

from __future__ import annotations

import ast
import json
import struct
import zipfile
from pathlib import Path
from typing import IO

_LARGEST = 1 << 20
"""A header is not longer."""

ID = "id"
"""The column in which `MatrixReader` gives the ids."""
IDS = ("ids", ID)
LATENTS = (
    "Latents are a matrix of numbers, one row for each item; or an array [n, T, d] of tokens, or "
    "[n, H, W, d] of grids."
)


def is_shape(shape: tuple[int, ...]) -> bool:
    """Whether latents can have this shape."""
    return len(shape) in (2, 3, 4) and all(shape)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Array → its shape, of a `.npy`, `.npz` or `.safetensors` file; nothing of any other file, or
    of one that can't be read: who reads the arrays says why.

    Example:
        shapes(Path("camera.npy"))  # {"camera": (500, 24, 24, 3)}
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            with zipfile.ZipFile(path) as file:
                found = {}
                for name in file.namelist():
                    with file.open(name) as member:
                        found[name.removesuffix(".npy")] = _shape(member)
                return found
        with path.open("rb") as file:
            if suffix == ".npy":
                return {path.stem: _shape(file)}
            return _of_tensors(file) if suffix == ".safetensors" else {}
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error):
        return {}
    except zipfile.BadZipFile:
        return {}


def _shape(file: IO[bytes]) -> tuple[int, ...]:
    """The shape in the header of NumPy's format, versions 1 to 3."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise ValueError("not an .npy file")
    form = "<H" if magic[6] == 1 else "<I"
    (size,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if size > _LARGEST:
        raise ValueError("too long a header")
    return tuple(ast.literal_eval(file.read(size).decode("latin-1"))["shape"])


def _of_tensors(file: IO[bytes]) -> dict[str, tuple[int, ...]]:
    (size,) = struct.unpack("<Q", file.read(8))
    if size > _LARGEST:
        raise ValueError("too long a header")
    header = json.loads(file.read(size))
    return {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
