"""Segments of the flat index: immutable files of vectors, named by a digest of their bytes.

A segment is a safetensors file with `keys` uint64 [n, 2], `rows` float32 [n, dim], `kept` float32
[n, K], and what a scan reads: `codes` int8 [n, dim], which times `scale` [n] are the rows up to a
rest of the length `error` [n], and `norm` [n], the length of the rounded row.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from pathlib import Path

import numpy as np

from fusemix_core.disk import Advice, explained, make_folder, write_atomically
from fusemix_core.latents.shards import BadShardError, parse_header, safetensors_header

SUFFIX = ".vectors"
ADVICE = Advice(
    "Free some space, then run again: what is written is kept.",
    "Choose a folder that you may write to.",
    "Check the disk, then run again: what is written is kept.",
)
_CODES = {"uint64": "U64", "float32": "F32", "int8": "I8"}
_NUMPY = {"U64": "<u8", "F32": "<f4", "I8": "i1"}
_CHUNK = 1 << 22
_FORMAT = "fusemix-vectors-1"


class Segment:
    """A segment on disk, memory-mapped but for its rows: only few are needed at once.

    Attributes:
        keys, kept, scale, error, norm, codes: see the module.
        size: bytes of the file.
    """

    def __init__(self, path: Path, dim: int, kept: int) -> None:
        """Map the file; raises `BadShardError` if it is malformed, OSError if it can't be read."""
        self.path, self.dim = path, dim
        file = self._file = open(path, "rb", buffering=0)  # noqa: SIM115  as long as it is mapped
        self.size = os.fstat(file.fileno()).st_size
        start, tensors = parse_header(path, file, self.size)
        data = self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self.count = count = tensors["keys"]["shape"][0]
            layout = _layout(count, dim, kept)
            ends = {name: tensors[name]["data_offsets"] for name in layout}
            expected = json.loads(safetensors_header(layout, {"format": _FORMAT})[8:])
            if tensors != expected or self.size != start + ends["codes"][1]:
                raise ValueError("its header does not fit")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BadShardError(f"{path} is damaged: {error}.") from error
        arrays = {}
        for name, (code, shape, _) in layout.items():
            size = int(np.prod(shape))
            if size:
                found = np.frombuffer(data, _NUMPY[code], size, start + ends[name][0])
                arrays[name] = found.reshape(shape)
            else:
                arrays[name] = np.zeros(shape, _NUMPY[code])
        self.keys, self.kept, self.codes = arrays["keys"], arrays["kept"], arrays["codes"]
        self.scale, self.error, self.norm = arrays["scale"], arrays["error"], arrays["norm"]
        self._rows_at = start + ends["rows"][0]

    def __len__(self) -> int:
        return self.count

    def rows(self, which: np.ndarray) -> np.ndarray:
        """float32 `[m, dim + K]`: the vectors of the row numbers `which`. Reads these only, so that
        the whole file never is in the process's memory."""
        out = np.empty((len(which), self.dim + self.kept.shape[1]), np.float32)
        width = 4 * self.dim
        for i, row in enumerate(which.tolist()):
            out[i, : self.dim] = np.frombuffer(
                self._bytes(self._rows_at + row * width, width), "<f4"
            )
        out[:, self.dim :] = self.kept[which]
        return out

    def all_rows(self) -> np.ndarray:
        """float32 `[n, dim + K]`"""
        found = np.frombuffer(self._data, "<f4", len(self) * self.dim, self._rows_at)
        return np.concatenate([found.reshape(len(self), self.dim), self.kept], axis=1)

    def _bytes(self, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, start)
        return self._data[start : start + size]  # Windows


def _layout(count: int, dim: int, kept: int) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Tensor → dtype's code, shape, bytes; those of bytes last, so that all are aligned."""
    return {
        "keys": ("U64", (count, 2), 16 * count),
        "rows": ("F32", (count, dim), 4 * count * dim),
        "kept": ("F32", (count, kept), 4 * count * kept),
        "scale": ("F32", (count,), 4 * count),
        "error": ("F32", (count,), 4 * count),
        "norm": ("F32", (count,), 4 * count),
        "codes": ("I8", (count, dim), count * dim),
    }


def rounded(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int8 codes `[n, dim]`, float32 scale `[n]`) whose product is nearest to the rows."""
    scale = np.abs(rows).max(axis=1, initial=0).astype(np.float32) / 127
    by = np.where(scale > 0, scale, 1)[:, None]
    return np.rint(rows / by).astype(np.int8), scale


def write_segment(folder: Path, keys: np.ndarray, rows: np.ndarray, dim: int) -> str:
    """Write vectors float32 `[n, dim + K]` of `keys` `[n, 2]`; the digest that names the file.

    Raises `ArtefactError` if the disk is full or the folder can't be written.
    """
    embeddings = np.ascontiguousarray(rows[:, :dim], "<f4")
    codes, scale = rounded(embeddings)
    close = codes.astype(np.float32) * scale[:, None]
    tensors: dict[str, np.ndarray] = {
        "keys": np.ascontiguousarray(keys, "<u8"),
        "rows": embeddings,
        "kept": np.ascontiguousarray(rows[:, dim:], "<f4"),
        "scale": scale.astype("<f4"),
        "error": np.linalg.norm(embeddings - close, axis=1).astype("<f4"),
        "norm": np.linalg.norm(close, axis=1).astype("<f4"),
        "codes": codes,
    }
    layout = _layout(len(keys), dim, rows.shape[1] - dim)
    parts = [safetensors_header(layout, {"format": _FORMAT})]
    parts += [tensors[name].reshape(-1).view(np.uint8).data for name in layout]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    name = digest.hexdigest()
    with explained(f"The index {folder}", ADVICE):
        make_folder(folder)
        write_atomically(folder / f"{name}{SUFFIX}", parts)
    return name


def digest_of(path: Path) -> str:
    """The digest of a file's bytes, by which the files of an index are named."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def check_rows(keys: np.ndarray, rows: np.ndarray, dim: int, kept: int) -> None:
    """Raise ValueError unless rows are float32 `[n, dim + kept]`, finite, one per key."""
    if rows.shape != (len(keys), dim + kept) or keys.shape != (len(keys), 2):
        raise ValueError(f"rows {rows.shape} and keys {keys.shape} don't fit [n, {dim + kept}]")
    if not np.isfinite(rows).all():
        raise ValueError("vectors contain NaN or infinity")
